#include "dsv3/convert/rectangles.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace dsv3 {
namespace {

int64_t numel(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
}

// The elements of a rectangle, by walking its indices.
std::vector<int64_t> elements(const std::vector<int64_t>& shape, const std::vector<int64_t>& offsets,
                              const std::vector<int64_t>& sizes) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < numel(sizes); ++i) {
    int64_t rest = i, flat = 0, stride = 1;
    for (size_t d = shape.size(); d-- > 0;) {
      flat += (offsets[d] + rest % sizes[d]) * stride;
      rest /= sizes[d];
      stride *= shape[d];
    }
    out.push_back(flat);
  }
  return out;
}

const std::vector<std::vector<int64_t>> kShapes = {{},     {1},    {7},       {3, 5},
                                                   {1, 6}, {6, 1}, {2, 3, 4}, {3, 1, 2, 2}};

TEST(Rectangles, CoverEveryRangeOfEveryShapeInOrder) {
  for (const auto& shape : kShapes) {
    for (int64_t begin = 0; begin <= numel(shape); ++begin) {
      for (int64_t count = 0; begin + count <= numel(shape); ++count) {
        std::vector<int64_t> covered;
        const auto found = rectangles(shape, begin, count);
        for (const Rectangle& part : found) {
          const auto own = elements(shape, part.offsets, part.sizes);
          ASSERT_EQ(own.front(), part.begin);
          ASSERT_EQ(static_cast<int64_t>(own.size()), part.count);
          covered.insert(covered.end(), own.begin(), own.end());
        }
        std::vector<int64_t> wanted(static_cast<size_t>(count));
        std::iota(wanted.begin(), wanted.end(), begin);
        EXPECT_EQ(covered, wanted);
        EXPECT_LE(found.size(), std::max<size_t>(2 * shape.size(), 2) - 1);
      }
    }
  }
}

TEST(Runs, AreWhatARectangleHoldsOfARange) {
  std::mt19937 random(1);
  for (const auto& shape : kShapes) {
    for (int trial = 0; trial < 200; ++trial) {
      std::vector<int64_t> offsets, sizes;
      for (const int64_t dim : shape) {
        offsets.push_back(static_cast<int64_t>(random()) % dim);
        sizes.push_back(1 + static_cast<int64_t>(random()) % (dim - offsets.back()));
      }
      const int64_t begin = static_cast<int64_t>(random()) % (numel(shape) + 1);
      const int64_t end = begin + static_cast<int64_t>(random()) % (numel(shape) - begin + 1);
      const auto own = elements(shape, offsets, sizes);
      std::vector<std::pair<int64_t, int64_t>> wanted, found;  // of the tensor, of the rectangle
      for (size_t i = 0; i < own.size(); ++i)
        if (own[i] >= begin && own[i] < end) wanted.emplace_back(own[i], i);
      for_each_run(shape, offsets, sizes, begin, end, [&](const dsv3::Run& run) {
        for (int64_t i = 0; i < run.count; ++i) found.emplace_back(run.tensor + i, run.rectangle + i);
      });
      EXPECT_EQ(found, wanted);
    }
  }
}

TEST(Runs, OfWholeRowsAreOneRun) {
  int runs = 0;
  for_each_run(std::vector<int64_t>{8, 4, 2}, std::vector<int64_t>{2, 0, 0}, std::vector<int64_t>{5, 4, 2}, 0,
               64, [&](const dsv3::Run& run) {
                 ++runs;
                 EXPECT_EQ(run.tensor, 16);
                 EXPECT_EQ(run.count, 40);
               });
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace dsv3
