#pragma once
// One process at a time.

#include <filesystem>

namespace dsv3 {

// Held while this object lives, or until its process ends in whatever way: flock(2) on a file that is made
// when it is not there, in a folder that is.
class FileLock {
 public:
  enum class When { wait, now };  // while another process holds it: wait, or held() is false
  // RunError when the file cannot be opened or locked. A holder may remove the file when its work is done:
  // who waited for it then holds nothing but the knowledge that it is, and looks; with `now` it is the file
  // of that name in any case.
  FileLock(const std::filesystem::path& path, When when);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  bool held() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace dsv3
