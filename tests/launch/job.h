#pragma once
// A job of the fake engine under bin/dsv3, watched from outside. Everything waits for a condition, never for
// a time.

#include <sys/prctl.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cli/run.h"
#include "dsv3/base/rank_board.h"

namespace dsv3::test {

// False after a minute: far more than a busy machine needs.
inline bool eventually(const std::function<bool()>& condition) {
  const int64_t until = monotonic_ms() + 60'000;
  while (!condition()) {
    if (monotonic_ms() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// Ended, whether somebody has reaped it or not.
inline bool is_gone(pid_t pid) {
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  const size_t end = stat.rfind(") ");
  return end == stat.npos || stat[end + 2] == 'Z' || stat[end + 2] == 'X';
}

class Job {
 public:
  // env: "FAKE=steps", "FAKE_2=steps", … (fake_engine/main.cpp) and others; they also replace what is set
  // here.
  Job(std::vector<std::string> args, std::vector<std::string> env, std::filesystem::path out_to = {}) {
    std::filesystem::create_directory(dir_ / "tmp");
    out_ = out_to.empty() ? dir_ / "out" : out_to;
    args.insert(args.begin(), dsv3_program().string());
    env.insert(env.begin(), {"TMPDIR=" + (dir_ / "tmp").string(),
                             "DSV3_ENGINE=" + std::string(DSV3_BINARY_DIR) + "/tests/fake_engine"});
    start_ms_ = monotonic_ms();
    pid_ = ::fork();
    if (pid_ == 0) become(args, env);
  }
  ~Job() {
    if (pid_ > 0) ::kill(pid_, SIGKILL), ::waitpid(pid_, nullptr, 0);
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  pid_t pid() const { return pid_; }
  std::string err() const { return read_file(dir_ / "err"); }
  std::string out() const { return std::filesystem::is_regular_file(out_) ? read_file(out_) : ""; }
  bool err_has(std::string_view text) const {
    return eventually([&] { return err().find(text) != std::string::npos; });
  }
  bool out_has(std::string_view text) const {
    return eventually([&] { return out().find(text) != std::string::npos; });
  }

  // Everything that is left in TMPDIR.
  std::vector<std::filesystem::path> folders() const {
    std::vector<std::filesystem::path> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "tmp")) out.push_back(entry.path());
    return out;
  }
  // All these ranks have touched "ready-R" in the private folder; false when that does not happen.
  bool ready(std::initializer_list<int> ranks) {
    return eventually([&] {
      if (folders().empty()) return false;
      for (int rank : ranks) {
        if (!std::filesystem::exists(folders()[0] / ("ready-" + std::to_string(rank)))) return false;
      }
      return true;
    });
  }
  // After ready().
  RankBoard board() const { return RankBoard::open(folders().at(0) / "board"); }
  std::vector<pid_t> pids() const {
    std::vector<pid_t> pids;
    const RankBoard all = board();
    for (int rank = 0; rank < all.ranks(); ++rank) {
      // A rank may be ready before its launcher has noted who it is; and pid 0 would be this process's group.
      pid_t pid = 0;
      eventually([&] { return (pid = all.status(rank).pid) > 0; });
      if (pid <= 0) throw std::runtime_error("rank without a process");
      pids.push_back(pid);
    }
    return pids;
  }

  void signal(int signal) { ::kill(pid_, signal); }
  Result wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            .out = out(),
            .err = err(),
            .seconds = static_cast<double>(monotonic_ms() - start_ms_) / 1e3};
  }

 private:
  [[noreturn]] void become(std::vector<std::string>& args, const std::vector<std::string>& env) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // A group of its own, with its parent outside: in an orphaned group (a test run without a shell) the
    // kernel drops SIGTSTP.
    ::setpgid(0, 0);
    for (const char* name : {"RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "SLURM_STEP_NUM_TASKS"})
      ::unsetenv(name);
    for (const std::string& entry : env) ::putenv(const_cast<char*>(entry.c_str()));
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    ::dup2(::open("/dev/null", O_RDONLY), 0);
    ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT | O_NOCTTY, 0600), 1);
    ::dup2(::open((dir_ / "err").c_str(), O_WRONLY | O_CREAT, 0600), 2);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }

  TempDir dir_;
  std::filesystem::path out_;
  pid_t pid_ = 0;
  int64_t start_ms_ = 0;
};

inline Result run_job(const std::vector<std::string>& args, const std::vector<std::string>& env) {
  Job job(args, env);
  Result result = job.wait();
  EXPECT_TRUE(job.folders().empty());
  return result;
}

inline std::string host() {
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

inline bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

inline size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace dsv3::test
