#include "dsv3/cli/core/rank_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

struct rlimit g_open_files = {0, 0};  // before allow_open_files; 0: untouched

struct Pipe {
  Fd read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw RunError("--nproc", std::string("no pipe for a rank: ") + std::strerror(errno), "use fewer ranks");
  Pipe pipe{Fd(ends[0]), Fd(ends[1])};
  // The read end alone: a rank's writes wait for the launcher, as they would for any reader.
  ::fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK);
  return pipe;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

struct Child {
  const char* program;
  char* const* argv;
  char* const* environment;
  pid_t parent;
  int in, out, err;  // in < 0: as inherited
};

// Between fork and exec. All signals are blocked, so that no handler of the launcher runs here.
[[noreturn]] void become_rank(const Child& child) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != child.parent) ::_exit(1);  // the launcher died before the line above
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action = {};
    if (::sigaction(signal, nullptr, &action) != 0 || action.sa_handler == SIG_DFL) continue;
    // What was ignored when the launcher started stays so (nohup), but for SIGPIPE, which the launcher
    // ignores.
    if (action.sa_handler == SIG_IGN && signal != SIGPIPE) continue;
    action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(signal, &action, nullptr);
  }
  if (g_open_files.rlim_cur != 0) ::setrlimit(RLIMIT_NOFILE, &g_open_files);
  if (child.in >= 0) ::dup2(child.in, 0);
  ::dup2(child.out, 1);
  ::dup2(child.err, 2);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(child.program, child.argv, child.environment);
  const std::string line =
      fmt::format("dsv3: error: {}: cannot be started: {} (build or install dsv3 again)\n",
                  printable(child.program, 400), std::strerror(errno));
  if (::write(2, line.data(), line.size()) < 0) ::_exit(1);
  ::_exit(1);
}

}  // namespace

void Fd::reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

RankProcess start_rank(const RankCommand& command) {
  Pipe out = make_pipe(), err = make_pipe();
  const Fd null(command.inherit_stdin ? -1 : ::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<char*> argv = pointers(command.args), environment = pointers(command.environment);
  const Child child = {command.program.c_str(), argv.data(),    environment.data(), ::getpid(), null.get(),
                       out.write.get(),         err.write.get()};
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) become_rank(child);
  const int error = errno;
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0)
    throw RunError("--nproc", std::string("a rank cannot be started: ") + std::strerror(error),
                   "use fewer ranks");
  ::setpgid(pid, pid);  // also here: the group exists whoever of the two comes first
  return {.pid = pid, .out = std::move(out.read), .err = std::move(err.read)};
}

void allow_open_files(size_t count) {
  struct rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count) return;
  g_open_files = limit;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, count);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace dsv3
