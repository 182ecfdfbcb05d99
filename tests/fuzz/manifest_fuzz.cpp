// libFuzzer's entry to the manifest's parser: any bytes that carry their own right hash either parse or throw
// dsv3::Error, and what parses is written again.

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "dsv3/base/error.h"
#include "dsv3/convert/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string folder = [] {
    char name[] = "/dev/shm/dsv3-fuzz-XXXXXX";
    if (mkdtemp(name) == nullptr) abort();
    return std::string(name);
  }();
  static const std::string path = folder + "/manifest.json";
  static const bool cleanup = std::atexit([] {
                                unlink(path.c_str());
                                rmdir(folder.c_str());
                              }) == 0;
  if (!cleanup) abort();
  // Without the hash nothing would come as far as the parser.
  std::string text(reinterpret_cast<const char*>(data), size);
  const dsv3::Hash128 hash = dsv3::hash_bytes(std::as_bytes(std::span(text.data(), text.size())));
  text += "\"content\": \"" + dsv3::to_hex(hash) + "\"\n}\n";
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0 || write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) abort();
  close(file);
  try {
    const auto manifest = dsv3::Manifest::read(folder);
    if (!manifest || manifest->text().empty()) abort();
  } catch (const dsv3::Error&) {
  }
  return 0;
}
