#include "checkpoint/calls.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace dsv3::test {

std::function<void()> before_write;
std::function<int(int fd)> pread_error;

}  // namespace dsv3::test

// A program's own functions stand before those of libc, for its libraries too.
extern "C" ssize_t write(int fd, const void* data, size_t size) {
  if (dsv3::test::before_write) dsv3::test::before_write();
  return ::syscall(SYS_write, fd, data, size);
}

extern "C" ssize_t pread(int fd, void* out, size_t size, off_t offset) {
  const int error = dsv3::test::pread_error ? dsv3::test::pread_error(fd) : 0;
  if (error == 0) return ::syscall(SYS_pread64, fd, out, size, offset);
  errno = error;
  return -1;
}
