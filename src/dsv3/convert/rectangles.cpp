#include "dsv3/convert/rectangles.h"

#include <algorithm>

namespace dsv3 {
namespace {

// Elements between neighbours along each dim.
std::vector<int64_t> strides_of(std::span<const int64_t> shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
  return strides;
}

}  // namespace

std::vector<Rectangle> rectangles(std::span<const int64_t> shape, int64_t begin, int64_t count) {
  const std::vector<int64_t> strides = strides_of(shape);
  std::vector<Rectangle> found;
  for (int64_t at = begin, end = begin + count; at < end;) {
    Rectangle next{.offsets = {}, .sizes = {}, .begin = at, .count = 1};
    size_t dim = 0;  // the outermost along which a whole slice begins here and fits
    while (dim + 1 < shape.size() && (at % strides[dim] != 0 || at + strides[dim] > end)) ++dim;
    for (size_t d = 0; d < shape.size(); ++d) {
      const int64_t index = at / strides[d] % shape[d];
      next.offsets.push_back(d <= dim ? index : 0);
      next.sizes.push_back(d < dim    ? 1
                           : d == dim ? std::min((end - at) / strides[d], shape[d] - index)
                                      : shape[d]);
      next.count *= next.sizes.back();
    }
    at += next.count;
    found.push_back(std::move(next));
  }
  return found;
}

void for_each_run(std::span<const int64_t> shape, std::span<const int64_t> offsets,
                  std::span<const int64_t> sizes, int64_t begin, int64_t end,
                  const std::function<void(const Run&)>& fn) {
  const std::vector<int64_t> strides = strides_of(shape);
  // Runs are as long as the dims behind `dim` are whole.
  size_t dim = shape.empty() ? 0 : shape.size() - 1;
  while (dim > 0 && sizes[dim] == shape[dim]) --dim;
  const int64_t length = shape.empty() ? 1 : sizes[dim] * strides[dim];
  int64_t runs = 1;
  for (size_t d = 0; d < dim; ++d) runs *= sizes[d];
  if (length == 0) return;
  const auto start_of = [&](int64_t run) {
    int64_t start = shape.empty() ? 0 : offsets[dim] * strides[dim];
    for (size_t d = dim; d-- > 0;) {
      start += (offsets[d] + run % sizes[d]) * strides[d];
      run /= sizes[d];
    }
    return start;
  };
  // Runs ascend: the first that ends behind `begin`.
  int64_t first = 0;
  for (int64_t above = runs; first < above;) {
    const int64_t middle = first + (above - first) / 2;
    start_of(middle) + length <= begin ? first = middle + 1 : above = middle;
  }
  for (int64_t run = first; run < runs; ++run) {
    const int64_t start = start_of(run);
    const int64_t from = std::max(start, begin), to = std::min(start + length, end);
    if (from < to) fn({from, run * length + from - start, to - from});
    if (start >= end) break;
  }
}

}  // namespace dsv3
