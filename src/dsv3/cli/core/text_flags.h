#pragma once
// The flags by which prepare and tokenizer train are told what to read.

#include <cstdint>
#include <functional>
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

// For on_bad_line: warns of the first 20.
std::function<void(const std::string&)> warn_of_bad_lines();
// A warning "COUNT WHAT" on stderr, unless there is none.
void warn(int64_t count, const char* what);

}  // namespace dsv3
