#include "dsv3/cli/command.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <new>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/base/trace.h"
#include "dsv3/config/run_config.h"

namespace dsv3 {
namespace {

void print_help(std::span<const Command> commands) {
  size_t width = 0;
  for (const Command& command : commands) width = std::max(width, std::strlen(command.name));
  fmt::print("Trains DeepSeek-V3-family models.\n\nusage: dsv3 COMMAND [ARGS] [--section.key=value ...]\n\n");
  for (const Command& command : commands)
    if (*command.summary) fmt::print("  {:{}}  {}\n", command.name, width, command.summary);
  fmt::print(
      "\n  COMMAND --nproc N    train, eval, generate, doctor: N ranks on this machine\n"
      "  COMMAND --help       a command's arguments\n  --version            the version\n"
      "  --log-level LEVEL    error, warn, info or debug\n");
}

// Removes --log-level from args.
void take_log_level(std::vector<std::string>& args) {
  const std::vector<std::string> levels = {"error", "warn", "info", "debug"};
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] != "--log-level" && !args[i].starts_with("--log-level=")) continue;
    const bool apart = args[i] == "--log-level";
    if (apart && i + 1 == args.size()) throw UsageError("--log-level", "needs a value");
    const std::string level = apart ? args[i + 1] : args[i].substr(12);
    if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
      throw UsageError("--log-level", printable(level) + ", expected error|warn|info|debug");
    }
    ::setenv("DSV3_LOG_LEVEL", level.c_str(), 1);
    args.erase(args.begin() + i, args.begin() + i + (apart ? 2 : 1));
    return;
  }
}

// A checkpoint of many ranks has more files than the usual limit of 1,024.
void raise_file_limit() {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

extern "C" void leave_on_signal(int signal) { ::_exit(128 + signal); }

void install_signals() {
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of write(), which names the file
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction action = {};
    ::sigaction(signal, nullptr, &action);
    if (action.sa_handler == SIG_IGN) continue;  // nohup, or a shell's background job
    action = {};
    action.sa_handler = leave_on_signal;
    ::sigaction(signal, &action, nullptr);
  }
}

int dispatch(std::vector<std::string> args, char** argv, std::span<const Command> commands) {
  take_log_level(args);
  if (args.empty() || args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    print_help(commands);
    return static_cast<int>(args.empty() ? ExitCode::usage : ExitCode::ok);
  }
  std::vector<std::string> names;
  for (const Command& command : commands) {
    names.emplace_back(command.name);
    if (args[0] != command.name) continue;
    if (!command.run && command.launch) {
      std::vector<std::string> all;
      for (char** arg = argv + 1; *arg; ++arg) all.emplace_back(*arg);
      return command.launch(all);
    }
    if (!command.run) exec_engine(argv);
    return command.run({args.begin() + 1, args.end()});
  }
  const bool flag = args[0].starts_with('-');
  throw UsageError(args[0].empty() ? "''" : printable(args[0]),
                   flag ? "unknown flag, expected a command first" : "unknown command",
                   flag ? "see dsv3 --help" : "did you mean " + nearest(args[0], names) + "?");
}

// Output that did not arrive is a failure, whatever the command thought.
void flush_output() {
  if (std::fflush(stdout) != 0) throw RunError("standard output", std::strerror(errno));
  // errno is of another call by now.
  if (std::ferror(stdout) != 0) throw RunError("standard output", "an earlier line could not be written");
}

// torchrun's report names the first rank that failed, and shows what it left in this file.
void tell_torchrun(const std::string& line) {
  const char* file = std::getenv("TORCHELASTIC_ERROR_FILE");
  if (!file || !*file) return;
  try {
    const Json error = {{"message", "dsv3: error: " + printable(line, 8192)},
                        {"timestamp", std::to_string(std::time(nullptr))}};
    write_atomically(file, error.dump());
  } catch (const std::exception&) {  // the line on stderr is there
  }
}

int report(const std::string& line, ExitCode code) {
  const char* level = std::getenv("DSV3_LOG_LEVEL");
  std::string text = fmt::format("dsv3: error: {}\n", printable(line, 8192));
  if (level && std::string_view(level) == "debug") text += last_error_trace();
  std::fputs(text.c_str(), stderr);  // not fmt's print, which throws when nobody can be told
  tell_torchrun(line);
  return static_cast<int>(code);
}

}  // namespace

int reported(const std::function<int()>& body) {
  try {
    return body();
  } catch (const Error& error) {
    return report(error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return report("out of memory", ExitCode::failed);
  } catch (const std::exception& error) {
    // libtorch puts its call stack behind the first line.
    const std::string text = error.what();
    return report("internal error: " + text.substr(0, text.find('\n')), ExitCode::failed);
  }
}

int run_command(int argc, char** argv, std::span<const Command> commands) {
  install_signals();
  raise_file_limit();
  return reported([&] {
    const int code = dispatch({argv + std::min(argc, 1), argv + argc}, argv, commands);
    flush_output();
    return code;
  });
}

std::string engine_path() {
  if (const char* path = std::getenv("DSV3_ENGINE"); path && *path) return path;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return self.parent_path().parent_path() / "libexec/dsv3/dsv3-engine";
}

void exec_engine(char** argv) {
  const std::string engine = engine_path();
  ::execv(engine.c_str(), argv);
  throw RunError(printable(engine, 400), std::string("cannot be started: ") + std::strerror(errno),
                 "build or install dsv3 again");
}

std::vector<std::string> take_run_flags(std::vector<std::string>& args) {
  std::vector<std::string> flags, rest;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const size_t equals = arg.find('=');
    const bool run_flag = arg.starts_with("--") && arg.substr(0, equals).find('.') != std::string::npos;
    if (!run_flag) {
      rest.push_back(arg);
    } else if (equals != std::string::npos) {
      flags.push_back(arg.substr(2));
    } else if (i + 1 == args.size()) {
      throw UsageError(printable(arg), "needs a value");
    } else {
      flags.push_back(arg.substr(2) + "=" + args[++i]);
    }
  }
  args = std::move(rest);
  return flags;
}

}  // namespace dsv3
