#pragma once
// The launcher's signals, as something that poll() waits for.

#include <csignal>
#include <optional>

#include "dsv3/cli/core/rank_process.h"

namespace dsv3 {

// While it lives SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGTSTP do nothing but show up in next(), and
// SIGPIPE is ignored; afterwards they do what they did before. Those that were ignored (nohup) stay so, but
// for SIGCHLD. One at a time.
class SignalPipe {
 public:
  SignalPipe();
  ~SignalPipe();
  SignalPipe(const SignalPipe&) = delete;
  SignalPipe& operator=(const SignalPipe&) = delete;

  int fd() const { return read_.get(); }  // readable when there is one
  std::optional<int> next();
  // Does what SIGTSTP does by default; returns when the process continues.
  void stop_self();

 private:
  static constexpr int kSignals[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE};
  Fd read_, write_;
  struct sigaction before_[std::size(kSignals)];
};

}  // namespace dsv3
