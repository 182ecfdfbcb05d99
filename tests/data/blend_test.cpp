#include "dsv3/data/blend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "dsv3/config/shares.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using Shares = std::vector<int64_t>;

// Samples 0 to samples - 1: each draw is its source's next, and before each sample every source is within
// 1 - 1 / (2k - 2) of its share, in exact integers.
void expect_balanced(const Shares& shares, int64_t samples) {
  const Blend blend(shares);
  const int64_t period = std::accumulate(shares.begin(), shares.end(), int64_t{0});
  const int64_t scale = 2 * static_cast<int64_t>(shares.size()) - 2;
  ASSERT_EQ(blend.period(), period);
  Shares drawn(shares.size(), 0);
  for (int64_t n = 0; n < samples; ++n) {
    const Blend::Draw draw = blend(n);
    ASSERT_EQ(draw.index, drawn[draw.source]++) << "sample " << n;
    for (size_t s = 0; s < shares.size(); ++s) {
      const int64_t off = std::abs(drawn[s] * period - (n + 1) * shares[s]);
      ASSERT_LE(off * scale, (scale - 1) * period) << "source " << s << " after " << n + 1 << " samples";
    }
  }
}

TEST(Blend, EverySmallRatioIsWithinOneSampleAtEveryPrefix) {
  for (int64_t a = 1; a <= 9; ++a) {
    for (int64_t b = 1; b <= 9; ++b) {
      expect_balanced({a, b}, 3 * (a + b));
      for (int64_t c = 1; c <= 9; ++c) {
        expect_balanced({a, b, c}, 2 * (a + b + c));
        for (int64_t d = 1; d <= 4; ++d) expect_balanced({a, b, c, d}, a + b + c + d);
      }
    }
  }
}

TEST(Blend, RandomWeightsAreWithinOneSampleAtEveryPrefix) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 56; ++round) {
    std::vector<double> weights(2 + round % 7);
    // Fractions of one with 6 digits, some of them far smaller than others.
    const int64_t most = 1'000'000 / static_cast<int64_t>(weights.size());
    for (double& weight : weights) {
      const int64_t limit = random() % 3 == 0 ? 50 : most;
      weight = static_cast<double>(1 + random() % static_cast<uint64_t>(limit)) / 1e6;
    }
    const Shares shares = whole_shares(weights);
    ASSERT_FALSE(shares.empty());
    for (size_t s = 0; s < weights.size(); ++s) {
      ASSERT_DOUBLE_EQ(static_cast<double>(shares[s]) / static_cast<double>(shares[0]),
                       weights[s] / weights[0]);
    }
    expect_balanced(shares, 100'000);
  }
}

TEST(Blend, TwoSourcesAreNeverFurtherThanHalfASample) {
  const Blend blend(Shares{9, 1});
  std::vector<int64_t> rare;
  for (int64_t n = 0; n < 20; ++n)
    if (blend(n).source == 1) rare.push_back(n);
  EXPECT_EQ(rare, (std::vector<int64_t>{5, 15}));
}

// The order of a run is part of its result: a change here breaks resuming from older checkpoints.
TEST(Blend, StaysTheSameBetweenVersions) {
  const Blend blend(Shares{7, 2, 1});
  std::vector<int64_t> sources;
  for (int64_t n = 0; n < 10; ++n) sources.push_back(blend(n).source);
  EXPECT_EQ(sources, (std::vector<int64_t>{0, 0, 1, 0, 0, 2, 0, 0, 1, 0}));
}

TEST(Blend, CountsAndDrawsAreEachOthersInverse) {
  const Shares shares = {101, 7, 31, 1};
  const Blend blend(shares);
  for (const int64_t begin : {int64_t{0}, int64_t{1} << 40, std::numeric_limits<int64_t>::max() - 2000}) {
    Shares drawn = blend.drawn(begin);
    EXPECT_EQ(std::accumulate(drawn.begin(), drawn.end(), int64_t{0}), begin);
    for (int64_t n = begin; n < begin + 1000; ++n) {
      const Blend::Draw draw = blend(n);
      ASSERT_EQ(draw.index, drawn[draw.source]);
      ASSERT_EQ(blend.cursor_of(draw), n);
      ++drawn[draw.source];
      ASSERT_EQ(blend.drawn(n + 1), drawn);
    }
  }
  const int64_t largest = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(blend.cursor_of({.source = 3, .index = largest / 2}), largest) << "beyond int64";
}

TEST(Blend, AThousandSourcesAndTheLongestPeriod) {
  Shares many(1000);
  std::iota(many.begin(), many.end(), 1);
  expect_balanced(many, 3000);
  const double start = test::cpu_seconds();
  const Blend longest(Shares{1, kMaxBlendPeriod - 2, 1});
  const double limit = test::has_sanitizers() ? 20 : 2;
  EXPECT_LT(test::cpu_seconds() - start, limit);
  EXPECT_EQ(longest.drawn(kMaxBlendPeriod * 5), (Shares{5, 5 * (kMaxBlendPeriod - 2), 5}));
}

}  // namespace
}  // namespace dsv3
