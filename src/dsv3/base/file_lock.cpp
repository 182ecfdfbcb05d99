#include "dsv3/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

// Whether the name still is this file.
bool is_file_of(const std::filesystem::path& path, int fd) {
  struct stat named {
  }, opened{};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(fd, &opened) == 0 && named.st_dev == opened.st_dev &&
         named.st_ino == opened.st_ino;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& path, When when) {
  const auto fail = [&] {
    const std::string why = std::strerror(errno);
    if (fd_ >= 0) ::close(fd_);
    throw RunError(printable(path.string(), 400), why);
  };
  while (true) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno == EINTR) continue;
    if (fd_ < 0) fail();
    while (::flock(fd_, LOCK_EX | (when == When::now ? LOCK_NB : 0)) != 0) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) fail();
      ::close(std::exchange(fd_, -1));
      return;
    }
    if (when == When::wait || is_file_of(path, fd_)) return;
    ::close(fd_);
  }
}

FileLock::~FileLock() {
  if (fd_ < 0) return;
  // Itself: a close that fails and leaves the descriptor would leave the lock, for which this process may
  // wait.
  ::flock(fd_, LOCK_UN);
  ::close(fd_);
}

}  // namespace dsv3
