#pragma once
// Every error that a user can meet. The library throws; only the command line turns one into an exit code.
//
// One line on stderr: "dsv3: error: WHERE: WHAT (HINT)".

#include <stdexcept>
#include <string>
#include <string_view>

namespace dsv3 {

// The exit codes of the command line. 130 and 143 come from signals.
enum class ExitCode : int {
  ok = 0,
  failed = 1,     // failed while running: I/O, a dead rank, rendezvous
  usage = 2,      // flags, run file, layout, a named path that does not exist
  content = 3,    // content of data, model or checkpoint files
  bad_steps = 4,  // too many non-finite steps in a row
  stopped = 75,   // stopped by a signal after saving
};

class Error : public std::runtime_error {
 public:
  // where: file, flag or key; what: the value found and what was expected; hint: the way out, may be empty.
  Error(ExitCode code, std::string_view where, std::string_view what, std::string_view hint = {});
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Flags, run file, layout (exit 2). where = "FILE:LINE: key" or "--flag".
struct UsageError : Error {
  UsageError(std::string_view where, std::string_view what, std::string_view hint = {})
      : Error(ExitCode::usage, where, what, hint) {}
};

// Content of a file from outside (exit 3). field: the key, tensor name or byte offset inside the file.
struct InputError : Error {
  InputError(std::string_view file, std::string_view field, std::string_view why, std::string_view hint = {});
};

// A failure while running (exit 1): I/O, system calls.
struct RunError : Error {
  RunError(std::string_view where, std::string_view what, std::string_view hint = {})
      : Error(ExitCode::failed, where, what, hint) {}
};

// Text from outside made safe for one line of a terminal: control characters as \xNN (C1 too, U+0080 to
// U+009F, and bytes that continue no character), cut after max_bytes.
std::string printable(std::string_view text, size_t max_bytes = 200);

}  // namespace dsv3
