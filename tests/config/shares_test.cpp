#include "dsv3/config/shares.h"

#include <gtest/gtest.h>

#include <limits>
#include <numbers>

namespace dsv3 {
namespace {

using Shares = std::vector<int64_t>;

Shares shares(std::vector<double> weights) { return whole_shares(weights); }

TEST(WholeShares, AreTheRatioOfTheDecimalsAsWritten) {
  EXPECT_EQ(shares({0.7, 0.2, 0.1}), (Shares{7, 2, 1}));
  EXPECT_EQ(shares({3, 1}), (Shares{3, 1}));
  EXPECT_EQ(shares({0.5, 2}), (Shares{1, 4}));
  EXPECT_EQ(shares({1000, 250, 50}), (Shares{20, 5, 1}));
  EXPECT_EQ(shares({0.333333, 0.333333, 0.333334}), (Shares{333333, 333333, 333334}));
  EXPECT_EQ(shares({0.05, 0.87, 0.08}), (Shares{5, 87, 8}));
  EXPECT_EQ(shares({1e300, 2e300}), (Shares{1, 2}));
  EXPECT_EQ(shares({5e-324, 1e-323}), (Shares{1, 2})) << "denormal numbers";
  EXPECT_EQ(shares({2.5}), (Shares{1}));
}

TEST(WholeShares, EverySixDigitFractionOfOneFits) {
  EXPECT_EQ(shares({0.000001, 0.999999}), (Shares{1, 999999}));
  EXPECT_EQ(shares({0.123457, 0.876543}), (Shares{123457, 876543}));
}

TEST(WholeShares, AreEmptyWhenTheyWouldBeTooMany) {
  EXPECT_EQ(shares({1, kMaxBlendPeriod - 1}), (Shares{1, kMaxBlendPeriod - 1}));
  EXPECT_EQ(shares({1, static_cast<double>(kMaxBlendPeriod)}), Shares{});
  EXPECT_EQ(shares({std::numbers::pi, 1}), Shares{});
  EXPECT_EQ(shares({1, 1e-7}), Shares{});
  EXPECT_EQ(shares({5e-324, 1}), Shares{});
  EXPECT_EQ(shares({5e-324, std::numeric_limits<double>::max()}), Shares{});
}

TEST(WholeShares, AreMeantWhereAWeightIsWritten) {
  EXPECT_FALSE(is_blend(std::vector<DataSource>{{"a"}, {"b"}}));
  EXPECT_FALSE(is_blend(std::vector<DataSource>{{"a", 0.5}}));
  EXPECT_TRUE(is_blend(std::vector<DataSource>{{"a", 2}, {"b", 2}}));
  EXPECT_TRUE(is_blend(std::vector<DataSource>{{"a", 1}, {"b", 1}}));
  EXPECT_TRUE(is_blend(std::vector<DataSource>{{"a"}, {"b", 1}}));
  EXPECT_EQ(blend_shares(std::vector<DataSource>{{"a"}, {"b", 3}}), (Shares{1, 3}))
      << "1 where none is given";
  EXPECT_EQ(blend_shares(std::vector<DataSource>{{"a", 0.6}, {"b", 0.4}}), (Shares{3, 2}));
}

}  // namespace
}  // namespace dsv3
