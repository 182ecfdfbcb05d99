#pragma once
// One rank: a process of the engine whose output comes through pipes.

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace dsv3 {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

struct RankCommand {
  std::string program;
  std::vector<std::string> args;         // args[0] is the program's name
  std::vector<std::string> environment;  // "NAME=value", all of it
  bool inherit_stdin = false;            // else /dev/null
};

struct RankProcess {
  pid_t pid = 0;  // also its process group
  Fd out, err;    // read ends, non-blocking
};

// Starts the process in a group of its own, with default signal handling, and bound to this one: it is killed
// when the calling thread ends. A program that cannot be executed says so on err and ends with 1. RunError
// when there is no process or pipe to have.
RankProcess start_rank(const RankCommand& command);

// Room for this many open files where the hard limit allows it; ranks start with the limit that was there
// before.
void allow_open_files(size_t count);

}  // namespace dsv3
