#include "dsv3/cli/core/signal_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

int g_write = -1;  // a handler has no other way to the object

extern "C" void note_signal(int signal) {
  const int error = errno;
  const auto byte = static_cast<unsigned char>(signal);
  // A full pipe holds thousands of signals that nobody has looked at yet: one more tells nothing new.
  if (::write(g_write, &byte, 1) < 0) errno = error;
  errno = error;
}

}  // namespace

SignalPipe::SignalPipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw RunError("pipe", std::strerror(errno));
  read_ = Fd(ends[0]);
  write_ = Fd(ends[1]);
  g_write = write_.get();
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    ::sigaction(kSignals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler == SIG_IGN && kSignals[i] != SIGCHLD) continue;
    struct sigaction action = {};
    action.sa_handler = kSignals[i] == SIGPIPE ? SIG_IGN : note_signal;  // no SA_RESTART: see Outlet
    ::sigaction(kSignals[i], &action, nullptr);
  }
}

SignalPipe::~SignalPipe() {
  for (size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  g_write = -1;
}

std::optional<int> SignalPipe::next() {
  unsigned char byte = 0;
  if (::read(read_.get(), &byte, 1) != 1) return {};
  return byte;
}

void SignalPipe::stop_self() {
  struct sigaction before = {}, action = {};
  action.sa_handler = SIG_DFL;
  ::sigaction(SIGTSTP, &action, &before);
  ::raise(SIGTSTP);
  ::sigaction(SIGTSTP, &before, nullptr);
}

}  // namespace dsv3
