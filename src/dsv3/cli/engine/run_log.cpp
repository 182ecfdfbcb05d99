#include "dsv3/cli/engine/run_log.h"

#include <fmt/format.h>

#include <utility>

#include "dsv3/base/error.h"

namespace dsv3 {

void RunLog::open(const std::filesystem::path& path) {
  path_ = path.string();
  file_.open(path, std::ios::app);
  if (!file_) throw RunError(path_, "cannot be opened for writing");
  keep(std::exchange(held_, {}));
}

void RunLog::say(const std::string& line) {
  if (!speaks_) return;
  fmt::print("{}\n", line);
  std::fflush(stdout);
  keep(line + "\n");
}

void RunLog::warn(const std::string& line) {
  if (!speaks_) return;
  fmt::print(stderr, "dsv3: {}\n", line);
  keep("dsv3: " + line + "\n");
}

void RunLog::keep(const std::string& lines) {
  if (!file_.is_open()) {
    held_ += lines;
  } else if (!(file_ << lines << std::flush)) {
    throw RunError(path_, "cannot be written", "is the disk full?");
  }
}

}  // namespace dsv3
