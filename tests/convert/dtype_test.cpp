#include "dsv3/convert/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

namespace dsv3 {
namespace {

std::vector<float> decoded(DType dtype, const std::vector<uint16_t>& words) {
  std::vector<float> out(words.size());
  decode(dtype, std::as_bytes(std::span(words)), out);
  return out;
}
std::vector<uint16_t> encoded(DType dtype, const std::vector<float>& values) {
  std::vector<uint16_t> out(values.size());
  encode(values, dtype, std::as_writable_bytes(std::span(out)));
  return out;
}
std::vector<uint16_t> every_word() {
  std::vector<uint16_t> words(1 << 16);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint16_t>(i);
  return words;
}

// The value of a half by its definition.
double half_value(uint16_t x) {
  const int exponent = x >> 10 & 31, fraction = x & 1023;
  const double sign = x & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

TEST(DTypes, EveryHalfDecodesByItsDefinition) {
  const auto words = every_word();
  const auto values = decoded(DType::f16, words);
  for (size_t i = 0; i < words.size(); ++i) {
    const double expected = half_value(words[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(values[i])) << i;
    } else {
      EXPECT_EQ(values[i], expected) << i;
      EXPECT_EQ(std::signbit(values[i]), (words[i] & 0x8000) != 0) << i;
    }
  }
}

TEST(DTypes, EveryWordSurvivesTheRoundTrip) {
  const auto words = every_word();
  for (DType dtype : {DType::f16, DType::bf16}) {
    const int quiet = dtype == DType::f16 ? 0x200 : 0x40;
    const auto values = decoded(dtype, words);
    const auto back = encoded(dtype, values);
    for (size_t i = 0; i < words.size(); ++i) {
      EXPECT_EQ(back[i], std::isnan(values[i]) ? words[i] | quiet : words[i])
          << dtype_name(dtype) << " " << i;
    }
  }
}

// Between each two neighbours: the middle goes to the even one, a hair more or less to the nearer one.
TEST(DTypes, RoundsToNearestEven) {
  for (DType dtype : {DType::f16, DType::bf16}) {
    const uint16_t infinity = dtype == DType::f16 ? 0x7c00 : 0x7f80;
    for (uint16_t word = 0; word + 1 < infinity; ++word) {
      const auto pair = decoded(dtype, {word, static_cast<uint16_t>(word + 1)});
      const auto middle = static_cast<float>((static_cast<double>(pair[0]) + pair[1]) / 2);
      const float below = std::nextafter(middle, pair[0]), above = std::nextafter(middle, pair[1]);
      const auto even = static_cast<uint16_t>(word & 1 ? word + 1 : word);
      EXPECT_EQ(encoded(dtype, {middle, -middle, below, above}),
                (std::vector<uint16_t>{even, static_cast<uint16_t>(even | 0x8000), word,
                                       static_cast<uint16_t>(word + 1)}))
          << dtype_name(dtype) << " " << word;
    }
  }
  EXPECT_EQ(encoded(DType::f16, {65519.996f, 65520.0f, 1e30f}),
            (std::vector<uint16_t>{0x7bff, 0x7c00, 0x7c00}));
  EXPECT_EQ(encoded(DType::bf16, {std::numeric_limits<float>::max()}), (std::vector<uint16_t>{0x7f80}));
}

TEST(DTypes, NanStaysNan) {
  const float low_payload = std::bit_cast<float>(0x7f800001);
  for (DType dtype : {DType::f16, DType::bf16}) {
    EXPECT_TRUE(std::isnan(decoded(dtype, encoded(dtype, {low_payload}))[0]));
  }
}

TEST(DTypes, WideTypes) {
  const std::vector<double> wide{1.0 / 3, -1e300, 5};
  std::vector<double> same(3);
  decode(DType::f64, std::as_bytes(std::span(wide)), same);
  EXPECT_EQ(same, wide);
  std::vector<float> narrow(3);
  decode(DType::f64, std::as_bytes(std::span(wide)), narrow);
  EXPECT_EQ(narrow[0], 1.0f / 3);
  std::vector<std::byte> bytes(13);
  encode(narrow, DType::f32, std::span(bytes).subspan(1));  // misaligned
  std::vector<float> back(3);
  decode(DType::f32, std::span(bytes).subspan(1), back);
  EXPECT_EQ(back, narrow);
}

TEST(DTypes, CallersMistakes) {
  std::vector<std::byte> bytes(4);
  std::vector<float> values(2);
  EXPECT_THROW(decode(DType::f32, bytes, values), std::logic_error);
  EXPECT_THROW(decode(DType::i16, bytes, values), std::logic_error);
  EXPECT_THROW(encode(values, DType::f8_e4m3, std::span(bytes).first(2)), std::logic_error);
  EXPECT_FALSE(is_float(DType::f8_e4m3));
  EXPECT_TRUE(is_float(DType::f16));
}

}  // namespace
}  // namespace dsv3
