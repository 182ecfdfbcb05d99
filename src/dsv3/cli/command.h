#pragma once
// What the two programs share: choosing a command, turning errors into exit codes, signals, flags.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace dsv3 {

struct Command {
  const char* name;
  const char* summary;  // empty: of our own tools, not in the list
  // Arguments after the name. Returns the exit code; may throw Error. nullptr: the engine runs it
  // (exec_engine).
  int (*run)(std::vector<std::string> args);
  // Of a command of the engine that may be several local ranks (--nproc N): gets all arguments of the program
  // instead of exec_engine. Returns the exit code; may throw Error.
  int (*launch)(std::vector<std::string> args) = nullptr;
};

// Runs argv[1]. An exception becomes one line on stderr and its exit code; SIGINT ends the process with 130
// and SIGTERM with 143 unless the command installs handlers of its own. Without a command or with --help: the
// list of commands.
// --log-level error|warn|info|debug may stand anywhere and lands in the environment as DSV3_LOG_LEVEL; debug
// adds the call stack to an error.
int run_command(int argc, char** argv, std::span<const Command> commands);

// What `body` returns; or an exception of it as one line on stderr, and its exit code. A command that holds
// groups of ranks runs in it what can fail: groups whose peers are gone take seconds to close, and the line
// comes before.
int reported(const std::function<int()>& body);

// libexec/dsv3/dsv3-engine beside this program's folder. DSV3_ENGINE in the environment names another; it is
// there for the tests alone.
std::string engine_path();

// Replaces the process by the engine, with the same arguments. RunError when that fails.
[[noreturn]] void exec_engine(char** argv);

// Takes "--section.key=value" and "--section.key value" out of args; returns them as "section.key=value",
// which is what RunConfig::load wants. UsageError when the value is missing.
std::vector<std::string> take_run_flags(std::vector<std::string>& args);

// Parses args, which may not hold run flags. False: --help was asked for and is printed. UsageError names an
// unknown flag and the nearest one, an unexpected or missing argument, and a flag that is given twice.
bool parse_args(CLI::App& app, std::vector<std::string> args);

// A line for the help of a command that may be several ranks.
inline constexpr const char* kNprocHelp = "  --nproc N  as N ranks on this machine";

// For CLI::Option::check: an integer of `low` or more.
std::function<std::string(const std::string&)> at_least(int64_t low);

}  // namespace dsv3
