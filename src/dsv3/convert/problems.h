#pragma once
// Everything about a set of tensors that does not fit, in one error.

#include <string>
#include <string_view>

namespace dsv3 {

class Problems {
 public:
  explicit Problems(std::string file) : file_(std::move(file)) {}
  void add(std::string_view tensor, std::string_view what);
  // InputError{file, the first tensor, …}: the first 20, then a count.
  void throw_if_any(std::string_view hint) const;

 private:
  std::string file_;
  size_t count_ = 0;
  std::string first_, text_;
};

}  // namespace dsv3
