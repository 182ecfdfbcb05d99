#include "dsv3/formats/box_cover.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "dsv3/base/checked.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxPairs = 64;  // boxes that are compared in pairs
// How often a box may be sorted, on average: a grid and ranges of the flattened tensor need the number of
// dims at most. Boxes that only ever let one of them be cut off would make it quadratic.
constexpr uint64_t kMaxSorts = 64;
constexpr uint64_t kFreeWork = 8192;

class OverlapSearch {
 public:
  OverlapSearch(std::span<const Box> boxes, size_t num_dims) : boxes_(boxes), num_dims_(num_dims) {}

  std::optional<std::string> run(std::span<uint32_t> ids) { return search(ids, 0); }

 private:
  int64_t begin(uint32_t id, size_t dim) const { return boxes_[id].offsets[dim]; }
  int64_t end(uint32_t id, size_t dim) const { return begin(id, dim) + boxes_[id].sizes[dim]; }

  // Cuts the boxes along some dim where none of them crosses the cut, first of all along `dim`, and searches
  // the parts.
  std::optional<std::string> search(std::span<uint32_t> ids, size_t dim) {
    if (ids.size() < 2) return std::nullopt;
    for (size_t tried = 0; tried < num_dims_; ++tried, dim = (dim + 1) % num_dims_) {
      work_ += ids.size();
      if (work_ > kMaxSorts * boxes_.size() + kFreeWork) return irregular();
      std::ranges::sort(ids, {}, [&](uint32_t id) { return std::pair(begin(id, dim), id); });
      if (first_part(ids, dim).size() == ids.size()) continue;
      while (!ids.empty()) {
        const auto part = first_part(ids, dim);
        if (auto fault = search(part, (dim + 1) % num_dims_)) return fault;
        ids = ids.subspan(part.size());
      }
      return std::nullopt;
    }
    return compare_pairs(ids);
  }

  // The boxes, sorted by begin, up to the first cut.
  std::span<uint32_t> first_part(std::span<uint32_t> ids, size_t dim) const {
    int64_t reach = end(ids[0], dim);
    size_t count = 1;
    for (; count < ids.size() && begin(ids[count], dim) < reach; ++count) {
      reach = std::max(reach, end(ids[count], dim));
    }
    return ids.first(count);
  }

  std::optional<std::string> compare_pairs(std::span<const uint32_t> ids) const {
    const auto few = ids.first(std::min(ids.size(), kMaxPairs));
    for (size_t i = 0; i < few.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (overlap(few[i], few[j])) {
          return fmt::format("chunks at [{}] and [{}] overlap", fmt::join(boxes_[few[j]].offsets, ", "),
                             fmt::join(boxes_[few[i]].offsets, ", "));
        }
      }
    }
    return few.size() == ids.size() ? std::nullopt : irregular();
  }
  bool overlap(uint32_t a, uint32_t b) const {
    for (size_t dim = 0; dim < num_dims_; ++dim) {
      if (begin(a, dim) >= end(b, dim) || begin(b, dim) >= end(a, dim)) return false;
    }
    return true;
  }
  static std::optional<std::string> irregular() { return "chunks that are cut too irregularly, or overlap"; }

  std::span<const Box> boxes_;
  size_t num_dims_;
  uint64_t work_ = 0;  // boxes sorted so far
};

bool lies_in(const Box& box, std::span<const int64_t> shape) {
  if (box.offsets.size() != shape.size() || box.sizes.size() != shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (box.offsets[i] < 0 || box.sizes[i] < 0 || box.sizes[i] > shape[i] ||
        box.offsets[i] > shape[i] - box.sizes[i]) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::optional<std::string> find_box_fault(std::span<const Box> boxes, std::span<const int64_t> shape) {
  const int64_t numel = checked_numel(shape).value_or(-1);
  int64_t total = 0;
  std::vector<uint32_t> ids;
  for (uint32_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    if (!lies_in(box, shape)) {
      return fmt::format("chunk of [{}] at [{}] lies outside of shape [{}]", fmt::join(box.sizes, ", "),
                         fmt::join(box.offsets, ", "), fmt::join(shape, ", "));
    }
    const int64_t volume = *checked_numel(box.sizes);  // no larger than numel
    if (volume > 0) ids.push_back(i);
    total = checked_add(total, volume).value_or(INT64_MAX);
  }
  if (auto fault = OverlapSearch(boxes, shape.size()).run(ids)) return fault;
  if (total != numel) {
    return fmt::format("chunks hold {} elements of the {} of shape [{}]", total, numel,
                       fmt::join(shape, ", "));
  }
  return std::nullopt;
}

}  // namespace dsv3
