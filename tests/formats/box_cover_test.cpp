#include "dsv3/formats/box_cover.h"

#include <gtest/gtest.h>

#include "support/files.h"

namespace dsv3 {
namespace {

using Shape = std::vector<int64_t>;

std::string fault(const std::vector<Box>& boxes, const Shape& shape) {
  return find_box_fault(boxes, shape).value_or("");
}

TEST(BoxCover, CutsOfEveryKind) {
  EXPECT_EQ(fault({{{}, {}}}, {}), "");
  EXPECT_EQ(fault({{{0}, {0}}}, {0}), "");
  EXPECT_EQ(fault({}, {0, 3}), "");
  EXPECT_EQ(fault({{{0, 0}, {2, 3}}, {{2, 0}, {0, 3}}}, {2, 3}), "");  // a rank without rows
  EXPECT_EQ(fault({{{2, 0}, {2, 3}}, {{0, 0}, {2, 1}}, {{0, 1}, {2, 2}}}, {4, 3}), "");
  // A pinwheel.
  EXPECT_EQ(fault({{{0, 0}, {1, 2}}, {{0, 2}, {2, 1}}, {{2, 1}, {1, 2}}, {{1, 0}, {2, 1}}, {{1, 1}, {1, 1}}},
                  {3, 3}),
            "");
  // Ranges of a flattened tensor: 5 to 18 of [2, 3, 4].
  EXPECT_EQ(fault({{{0, 0, 0}, {1, 1, 4}},
                   {{0, 1, 0}, {1, 1, 1}},
                   {{0, 1, 1}, {1, 1, 3}},
                   {{0, 2, 0}, {1, 1, 4}},
                   {{1, 0, 0}, {1, 1, 4}},
                   {{1, 1, 0}, {1, 1, 2}},
                   {{1, 1, 2}, {1, 1, 2}},
                   {{1, 2, 0}, {1, 1, 4}}},
                  {2, 3, 4}),
            "");
}

TEST(BoxCover, Faults) {
  EXPECT_EQ(fault({{{0, 0}, {2, 3}}}, {3, 3}), "chunks hold 6 elements of the 9 of shape [3, 3]");
  EXPECT_EQ(fault({}, {2}), "chunks hold 0 elements of the 2 of shape [2]");
  EXPECT_EQ(fault({{{1}, {2}}}, {2}), "chunk of [2] at [1] lies outside of shape [2]");
  EXPECT_EQ(fault({{{3}, {0}}}, {2}), "chunk of [0] at [3] lies outside of shape [2]");
  EXPECT_EQ(fault({{{0}, {2}}}, {2, 1}), "chunk of [2] at [0] lies outside of shape [2, 1]");
  EXPECT_EQ(fault({{{-1}, {2}}}, {2}), "chunk of [2] at [-1] lies outside of shape [2]");
  EXPECT_EQ(
      fault({{{INT64_MAX}, {INT64_MAX}}}, {INT64_MAX}),
      "chunk of [9223372036854775807] at [9223372036854775807] lies outside of shape [9223372036854775807]");
  EXPECT_EQ(fault({{{}, {}}, {{}, {}}}, {}), "chunks at [] and [] overlap");
  // As many elements as the shape has.
  EXPECT_EQ(fault({{{0, 0}, {2, 2}}, {{1, 1}, {2, 2}}, {{0, 2}, {1, 1}}}, {3, 3}),
            "chunks at [0, 0] and [1, 1] overlap");
}

TEST(BoxCover, ManyBoxesAreFast) {
  const double begin = test::cpu_seconds();
  std::vector<Box> grid, stairs, pile;
  for (int64_t i = 0; i < 100'000; ++i) grid.push_back({{i % 100, i / 100 % 100, i / 10'000}, {1, 1, 1}});
  EXPECT_EQ(fault(grid, {100, 100, 10}), "");
  // Each cut takes one box off.
  constexpr int64_t kSteps = 20'000;
  for (int64_t i = 0; i < kSteps; ++i) {
    stairs.push_back({{i, i}, {1, kSteps - i}});
    stairs.push_back({{i + 1, i}, {kSteps - i - 1, 1}});
  }
  EXPECT_EQ(fault(stairs, {kSteps, kSteps}), "chunks that are cut too irregularly, or overlap");
  for (int64_t i = 0; i < 100'000; ++i) pile.push_back({{i, 0}, {100'000, 1}});
  EXPECT_EQ(fault(pile, {200'000, 1}), "chunks at [0, 0] and [1, 0] overlap");
  if (!test::has_sanitizers()) {
    EXPECT_LT(test::cpu_seconds() - begin, 1.0);
  }
}

}  // namespace
}  // namespace dsv3
