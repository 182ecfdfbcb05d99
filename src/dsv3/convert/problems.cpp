#include "dsv3/convert/problems.h"

#include <fmt/format.h>

#include "dsv3/base/error.h"

namespace dsv3 {

constexpr size_t kMaxListed = 20;

void Problems::add(std::string_view tensor, std::string_view what) {
  if (count_++ == 0) {
    first_ = tensor;
    text_ = what;
  } else if (count_ <= kMaxListed) {
    text_ += fmt::format("; {} {}", printable(tensor), what);
  }
}

void Problems::throw_if_any(std::string_view hint) const {
  if (count_ == 0) return;
  const std::string rest = count_ > kMaxListed ? fmt::format("; and {} more", count_ - kMaxListed) : "";
  throw InputError(file_, first_, text_ + rest, hint);
}

}  // namespace dsv3
