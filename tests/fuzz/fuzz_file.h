#pragma once
// A file of a private folder for parsers that take a path: they must refuse what is no file.

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

// Writes data to the one file of this process, removed at its end; returns its path.
inline const std::string& fuzz_file(const uint8_t* data, size_t size) {
  static const std::string folder = [] {
    char name[] = "/dev/shm/dsv3-fuzz-XXXXXX";
    if (mkdtemp(name) == nullptr) abort();
    return std::string(name);
  }();
  static const std::string path = folder + "/file";
  static const bool cleanup = std::atexit([] {
                                unlink(path.c_str());
                                rmdir(folder.c_str());
                              }) == 0;
  if (!cleanup) abort();
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) abort();
  close(file);
  return path;
}
