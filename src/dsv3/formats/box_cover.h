#pragma once
// Whether boxes tile a shape: the chunks of a tensor.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace dsv3 {

struct Box {
  std::vector<int64_t> offsets, sizes;  // a dim each
};

// Nothing when the boxes lie in shape, no two overlap and together they fill it; else what is wrong, for an
// error: "chunk 2 lies outside…". Empty boxes count for nothing. numel(shape) must fit int64.
// O(n log n) for cuts that run through (grids, ranges of rows, ranges of the flattened tensor). Boxes that
// interlock, like the stones of a pinwheel, are compared in pairs up to 64 of them and refused beyond.
std::optional<std::string> find_box_fault(std::span<const Box> boxes, std::span<const int64_t> shape);

}  // namespace dsv3
