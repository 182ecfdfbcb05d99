#include "dsv3/cli/engine/run_log.h"

#include <cstdio>
#include <utility>

namespace dsv3 {

void RunLog::open(const std::filesystem::path& path) {
  if (!speaks_) return;
  file_.emplace(path);
  keep(std::exchange(held_, {}));
}

void RunLog::say(const std::string& line) {
  if (!speaks_) return;
  // Not fmt's print, which throws: a terminal that takes no lines ends no run, log.txt has them. Of stdout
  // run_command tells at the end.
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
  keep(line + "\n");
}

void RunLog::warn(const std::string& line) {
  if (!speaks_) return;
  std::fputs(("dsv3: " + line + "\n").c_str(), stderr);
  keep("dsv3: " + line + "\n");
}

void RunLog::keep(const std::string& lines) {
  if (file_) {
    file_->append(lines);
  } else {
    held_ += lines;
  }
}

void RunLog::settle() {
  if (file_) file_->settle();
}

}  // namespace dsv3
