#pragma once
// What the calls of the system need at every place.

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace dsv3 {

inline std::string errno_text() { return std::strerror(errno); }

// For a message: "is a directory".
inline const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "no regular file";
}

// What call() returns, made again while a signal interrupts it.
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace dsv3
