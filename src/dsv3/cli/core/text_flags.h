#pragma once
// The flags by which prepare and tokenizer train are told what to read.

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace dsv3 {

struct TextFlags {
  std::vector<std::string> inputs = {};
  std::string format = "auto", glob = {}, text_key = "text";
  int64_t max_bad = 0;
  int threads = 1;  // all processors, unless the flag says otherwise

  void add_to(CLI::App& app);
};

// Lines that are skipped, as on_bad_line tells them: a warning each of the first 20.
class BadLineWarnings {
 public:
  void add(const std::string& line);
  // A warning of how many were skipped in all, if any, earlier commands' too, and how many of those of this
  // command were not shown.
  void finish(int64_t skipped) const;
  const std::vector<std::string>& shown() const { return shown_; }

 private:
  std::vector<std::string> shown_;
  int64_t not_shown_ = 0;
};
// A warning "COUNT WHAT" on stderr, unless there is none.
void warn(int64_t count, const char* what);

}  // namespace dsv3
