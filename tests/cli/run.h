#pragma once
// Runs a program as a subprocess.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "support/files.h"

namespace dsv3::test {

struct Result {
  int code = 0;  // the exit code, or -signal
  std::string out, err;
  double seconds = 0;
  double processor_seconds = 0;  // which other programs don't change
  double peak_mb = 0;            // resident, not below that of this process
};

struct RunOptions {
  std::vector<std::string> env = {};  // "NAME=value", added to this process's environment
  std::filesystem::path cwd = {};     // empty: this process's
  std::filesystem::path in_from = "/dev/null";
  std::filesystem::path out_to = {};  // where stdout goes, e.g. /dev/full; empty: Result::out
  std::filesystem::path err_to = {};  // stderr likewise
  int signal = 0;                     // sent after signal_after_ms
  int signal_after_ms = 0;
};

inline std::filesystem::path dsv3_program() { return std::filesystem::path(DSV3_BINARY_DIR) / "bin/dsv3"; }

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline Result run_program(const std::filesystem::path& program, std::vector<std::string> args,
                          const RunOptions& options = {}) {
  TempDir dir;  // files instead of pipes: nothing can fill up and block
  const auto out = options.out_to.empty() ? dir / "out" : options.out_to;
  const auto err = options.err_to.empty() ? dir / "err" : options.err_to;
  args.insert(args.begin(), program.string());
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);

  const auto start = std::chrono::steady_clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    if (!options.cwd.empty() && ::chdir(options.cwd.c_str()) != 0) ::_exit(126);
    for (const std::string& entry : options.env) ::putenv(const_cast<char*>(entry.c_str()));
    const int in_fd = ::open(options.in_from.c_str(), O_RDONLY);
    const int out_fd = ::open(out.c_str(), O_WRONLY | O_CREAT, 0600),
              err_fd = ::open(err.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(in_fd, 0);
    ::dup2(out_fd, 1);
    ::dup2(err_fd, 2);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  if (options.signal != 0) {
    ::usleep(static_cast<useconds_t>(options.signal_after_ms) * 1000);
    ::kill(child, options.signal);
  }
  int status = 0;
  rusage usage{};
  ::wait4(child, &status, 0, &usage);
  Result result;
  for (const timeval& time : {usage.ru_utime, usage.ru_stime})
    result.processor_seconds += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  result.peak_mb = static_cast<double>(usage.ru_maxrss) / 1024;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  if (options.out_to.empty()) result.out = read_file(out);
  if (options.err_to.empty()) result.err = read_file(err);
  return result;
}

inline Result dsv3(const std::vector<std::string>& args, const RunOptions& options = {}) {
  return run_program(dsv3_program(), args, options);
}

// Exit code, and one line "dsv3: error: ..." on stderr that holds every part.
inline void expect_failure(const Result& result, ExitCode code,
                           std::initializer_list<std::string_view> parts) {
  EXPECT_EQ(result.code, static_cast<int>(code)) << result.err;
  EXPECT_TRUE(result.err.starts_with("dsv3: error: ")) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_TRUE(result.err.ends_with("\n")) << result.err;
  EXPECT_EQ(result.err.find('\x1b'), std::string::npos) << result.err;
  for (std::string_view part : parts) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << " is not in: " << result.err;
  }
}

}  // namespace dsv3::test
