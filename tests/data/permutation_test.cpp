#include "dsv3/data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <unordered_set>
#include <vector>

namespace dsv3 {
namespace {

std::vector<int64_t> whole(int64_t n, uint64_t seed, uint64_t epoch) {
  KeyedPermutation permutation(n, seed, epoch);
  std::vector<int64_t> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = permutation(i);
  return out;
}

TEST(KeyedPermutation, IsABijectionForEveryLength) {
  std::vector<int64_t> lengths(300);
  std::iota(lengths.begin(), lengths.end(), 1);
  for (int64_t n : {509, 512, 513, 1023, 1024, 1025, 4099, 65535, 65536, 65537, 100003}) lengths.push_back(n);
  for (int64_t n : lengths) {
    for (uint64_t seed : {0ul, 1ul, ~0ul}) {
      std::vector<bool> hit(n);
      for (int64_t image : whole(n, seed, 3)) {
        ASSERT_GE(image, 0);
        ASSERT_LT(image, n);
        ASSERT_FALSE(hit[image]) << "n " << n << " seed " << seed;
        hit[image] = true;
      }
    }
  }
}

TEST(KeyedPermutation, StaysInsideAndApartForHugeLengths) {
  for (int64_t n : {int64_t{1} << 40, (int64_t{1} << 40) - 1, (int64_t{1} << 39) + 1, int64_t{1} << 62}) {
    KeyedPermutation permutation(n, 7, 0);
    std::unordered_set<int64_t> images;
    double sum = 0;
    for (int64_t i = 0; i < 20000; ++i) {
      const int64_t image = permutation(n - 1 - i);
      ASSERT_GE(image, 0);
      ASSERT_LT(image, n);
      images.insert(image);
      sum += static_cast<double>(image) / static_cast<double>(n);
    }
    EXPECT_EQ(images.size(), 20000u);
    EXPECT_NEAR(sum / 20000, 0.5, 5 * std::sqrt(1.0 / 12 / 20000));
  }
}

TEST(KeyedPermutation, SeedAndEpochChangeItAndNothingElseDoes) {
  const auto base = whole(1000, 1, 0);
  EXPECT_EQ(base, whole(1000, 1, 0));
  EXPECT_NE(base, whole(1000, 2, 0));
  EXPECT_NE(base, whole(1000, 1, 1));
  EXPECT_NE(whole(1000, 2, 1), whole(1000, 1, 2));
}

// The order of a run is part of its result: a change here breaks resuming from older checkpoints.
TEST(KeyedPermutation, StaysTheSameBetweenVersions) {
  EXPECT_EQ(whole(10, 1234, 5), (std::vector<int64_t>{5, 7, 0, 1, 2, 6, 4, 8, 9, 3}));
}

TEST(KeyedPermutation, SmallLengthsReachEveryOrderAboutEquallyOften) {
  for (int64_t n : {2, 3, 4}) {
    const int orders = n == 2 ? 2 : n == 3 ? 6 : 24, draws = 1000 * orders;
    std::map<std::vector<int64_t>, int> counts;
    for (int draw = 0; draw < draws; ++draw) ++counts[whole(n, 99, draw)];
    EXPECT_EQ(counts.size(), static_cast<size_t>(orders));
    for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 200) << n;
  }
}

TEST(KeyedPermutation, PlacesAreUniformAndNeighboursUnrelated) {
  constexpr int64_t kLength = 100, kDraws = 20000;
  std::vector<int> image_of_zero(kLength), step(kLength);
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    KeyedPermutation permutation(kLength, 5, draw);
    ++image_of_zero[permutation(0)];
    ++step[(permutation(51) - permutation(50) + kLength) % kLength];
  }
  // Chi-square with 99 and 98 degrees of freedom: mean 99, standard deviation 14.
  double places = 0, steps = 0;
  for (int count : image_of_zero) places += std::pow(count - 200.0, 2) / 200.0;
  for (int64_t d = 1; d < kLength; ++d) steps += std::pow(step[d] - kDraws / 99.0, 2) / (kDraws / 99.0);
  EXPECT_EQ(step[0], 0);
  EXPECT_LT(places, 99 + 5 * 14);
  EXPECT_LT(steps, 99 + 5 * 14);
}

}  // namespace
}  // namespace dsv3
