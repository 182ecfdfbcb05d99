#include "dsv3/base/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace dsv3 {
namespace {

// The known answers that the authors publish with their code (Random123, kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfTheKeyCounts) {
  const uint64_t value = philox_u64(1, 2, 3), high = 1ull << 40;
  EXPECT_EQ(philox_u64(0, 0, 0), 0xe169c58d6627e8d5);
  EXPECT_EQ(philox_u64(1, 2, 3), value);
  for (uint64_t other :
       {philox_u64(2, 2, 3), philox_u64(1, 3, 3), philox_u64(1, 2, 4), philox_u64(1 + high, 2, 3),
        philox_u64(1, 2 + high, 3), philox_u64(1, 2, 3 + high)}) {
    EXPECT_NE(other, value);
  }
}

TEST(Philox, HashOfNames) {  // FNV-1a's published values
  EXPECT_EQ(hash_name(""), 0xcbf29ce484222325);
  EXPECT_EQ(hash_name("a"), 0xaf63dc4c8601ec8c);
  EXPECT_EQ(hash_name("foobar"), 0x85944171f73967e8);
}

TEST(Philox, NormalNumbersDoNotDependOnTheCut) {
  std::vector<float> whole(1001), pieces(1001);
  philox_normal(whole, 0.02, 7, 11, 5);
  for (size_t begin = 0, size = 0; begin < pieces.size(); begin += size) {
    size = std::min<size_t>(begin % 7 + 1, pieces.size() - begin);
    philox_normal(std::span(pieces).subspan(begin, size), 0.02, 7, 11, 5 + begin);
  }
  EXPECT_EQ(whole, pieces);
}

TEST(Philox, NormalNumbersAreNormal) {
  std::vector<float> x(1 << 20);
  philox_normal(x, 2.0, 1, hash_name("x"), 0);
  double moments[5] = {}, neighbours = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(std::isfinite(x[i]));
    for (int k = 1; k <= 4; ++k) moments[k] += std::pow(x[i] / 2.0, k) / static_cast<double>(x.size());
    if (i > 0) neighbours += x[i] * x[i - 1] / 4.0 / static_cast<double>(x.size());
  }
  // Five standard errors of 2^20 samples.
  EXPECT_NEAR(moments[1], 0, 5 * 0.001);
  EXPECT_NEAR(moments[2], 1, 5 * 0.0014);
  EXPECT_NEAR(moments[3], 0, 5 * 0.0038);
  EXPECT_NEAR(moments[4], 3, 5 * 0.0096);
  EXPECT_NEAR(neighbours, 0, 5 * 0.001);
}

}  // namespace
}  // namespace dsv3
