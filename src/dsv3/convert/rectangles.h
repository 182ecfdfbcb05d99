#pragma once
// A contiguous range of a row-major tensor as rectangles, the form in which a distributed checkpoint names
// parts.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace dsv3 {

struct Rectangle {
  std::vector<int64_t> offsets, sizes;  // of the tensor's rank
  int64_t begin = 0, count = 0;         // elements [begin, begin + count) of the tensor, contiguous
};

// The fewest rectangles that are each contiguous, in order: at most 2 · rank − 1. begin and count are
// elements of the flat tensor; none for an empty range.
std::vector<Rectangle> rectangles(std::span<const int64_t> shape, int64_t begin, int64_t count);

// A contiguous piece of a rectangle: `count` elements that lie at `tensor` of the flat tensor and at
// `rectangle` of the flat rectangle.
struct Run {
  int64_t tensor = 0, rectangle = 0, count = 0;
};
// What the rectangle (offsets, sizes) holds of elements [begin, end) of the tensor, in ascending order.
void for_each_run(std::span<const int64_t> shape, std::span<const int64_t> offsets,
                  std::span<const int64_t> sizes, int64_t begin, int64_t end,
                  const std::function<void(const Run&)>& fn);

}  // namespace dsv3
