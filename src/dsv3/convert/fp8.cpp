#include "dsv3/convert/fp8.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

namespace dsv3 {
namespace {

constexpr std::array<float, 256> make_table() {
  std::array<float, 256> table{};
  for (unsigned code = 0; code < 256; ++code) {
    const unsigned exponent = code >> 3 & 15, fraction = code & 7;
    // 2^(exponent - 7) * (1 + fraction / 8), subnormals 2^-6 * fraction / 8: in units of 2^-9.
    const unsigned units = exponent == 0 ? fraction : (8 + fraction) << (exponent - 1);
    const float magnitude =
        (code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(units) / 512.0f;
    table[code] = code & 0x80 ? -magnitude : magnitude;
  }
  return table;
}
constexpr std::array<float, 256> kTable = make_table();

template <class T>
void dequantise_as(std::span<const std::byte> codes, std::span<const float> scales, int64_t cols,
                   int64_t begin, std::span<T> out) {
  if (codes.size() != out.size() || cols <= 0 || begin < 0)
    throw std::logic_error("dequantise: sizes differ");
  const int64_t width = (cols + kFp8Block - 1) / kFp8Block, first = begin / cols / kFp8Block;
  const int64_t end = begin + static_cast<int64_t>(out.size());
  if (begin < end &&
      static_cast<int64_t>(scales.size()) < ((end - 1) / cols / kFp8Block - first + 1) * width) {
    throw std::logic_error("dequantise: too few scales");
  }
  size_t i = 0;
  for (int64_t row = begin / cols, col = begin % cols; i < out.size(); ++row, col = 0) {
    const float* scale = scales.data() + (row / kFp8Block - first) * width;
    while (col < cols && i < out.size()) {
      const T factor = static_cast<T>(scale[col / kFp8Block]);
      const int64_t stop =
          std::min({cols, (col / kFp8Block + 1) * kFp8Block, col + static_cast<int64_t>(out.size() - i)});
      for (; col < stop; ++col, ++i) out[i] = static_cast<T>(kTable[static_cast<uint8_t>(codes[i])]) * factor;
    }
  }
}

// A block inside a row of blocks.
struct Block {
  const float* values;
  int64_t rows, width, stride;

  template <class Call>  // false as soon as call(value, index into the row of blocks) says so
  bool each(Call call) const {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = row * stride; i < row * stride + width; ++i) {
        if (!call(values[i], i)) return false;
      }
    }
    return true;
  }
};

uint8_t quantised(float value, float scale) {
  return std::isfinite(value) ? encode_e4m3(value / scale) : uint8_t{0x7f};
}

// Magnitudes that the largest of a block can have been a product of: one code for each fraction. Halving all
// codes and doubling the scale changes no value, so that the others are these again, with smaller codes to
// spare. (Of a scale below 2^-109 the halves may lose bits.)
constexpr float kLargestCodes[] = {448, 416, 384, 352, 320, 288, 256, 240};

// Calls fn(scale = amax / code) for each of these codes until one gives a scale.
template <class Try>
std::optional<float> try_codes(float amax, Try fn) {
  for (const float code : kLargestCodes) {
    // Of a subnormal amax: any scale that is not zero.
    if (const auto found = fn(std::max(amax / code, std::numeric_limits<float>::denorm_min()))) return found;
  }
  return std::nullopt;
}

// What was FP8 comes back: amax = fl(c s) for one of the codes above, which is within half a unit of amax's
// last place, at most one of s's; the quotient adds another half. So s is fl(amax / c) or a neighbour of it,
// and the other values of the block tell which: the first pair that gives all of them back exactly is taken.
// The first value that a pair does not give back ends its trial: weights that never were FP8 cost a few
// elements.
std::optional<float> exact_scale(const Block& block, float amax) {
  return try_codes(amax, [&](float scale) -> std::optional<float> {
    for (const float candidate : {scale, std::nextafter(scale, 2 * scale), std::nextafter(scale, 0.0f)}) {
      const bool exact = candidate > 0 && block.each([&](float value, int64_t) {
        return !std::isfinite(value) || decode_e4m3(quantised(value, candidate)) * candidate == value;
      });
      if (exact) return candidate;
    }
    return std::nullopt;
  });
}

// What was FP8 and then rounded to bf16. amax / c is within 2^-7 of s, while codes are at least 1/15 apart:
// each value has its old code, and says that the scale lies between its two middles to the next bf16, divided
// by the code. In the middle of what all values leave, no value is rounded otherwise.
std::optional<float> bf16_scale(const Block& block, float amax) {
  return try_codes(amax, [&](float scale) -> std::optional<float> {
    double low = 0, high = std::numeric_limits<double>::infinity();
    const bool fits = block.each([&](float value, int64_t) {
      const auto bits = std::bit_cast<uint32_t>(std::abs(value));
      if (bits == 0 || !std::isfinite(value)) return true;
      const double code = decode_e4m3(encode_e4m3(std::bit_cast<float>(bits) / scale));
      low = std::max(low, std::bit_cast<float>(bits - 0x8000) / code);
      high = std::min(high, std::bit_cast<float>(bits + 0x8000) / code);
      return (bits & 0xffff) == 0 && code > 0 && low <= high;
    });
    return fits ? std::optional((low + high) / 2) : std::nullopt;
  });
}

float block_scale(const Block& block) {
  float amax = 0;
  block.each([&](float value, int64_t) {
    if (std::isfinite(value)) amax = std::max(amax, std::abs(value));
    return true;
  });
  if (amax == 0) return 1;
  if (const auto scale = exact_scale(block, amax)) return *scale;
  if (const auto scale = bf16_scale(block, amax)) return *scale;
  return std::max(amax / kFp8Largest, std::numeric_limits<float>::denorm_min());
}

}  // namespace

float decode_e4m3(uint8_t code) { return kTable[code]; }

uint8_t encode_e4m3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 24 & 0x80, rest = bits & 0x7fffffff;
  // From 2^-6 on: the exponent's bias shrinks by 127 - 7 = 120, the lower 20 bits of the fraction are rounded
  // away.
  const uint32_t normal = (rest - (120u << 23) + 0x7ffff + (rest >> 20 & 1)) >> 20;
  // 2^14 has 2^-9, the step of the subnormals, as its last bit: the addition rounds.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) + 0x1p14f) - (141u << 23);
  const uint32_t code = rest > 0x7f800000                 ? 0x7f
                        : rest >= (135u << 23 | 0x680000) ? 0x7e  // from 464 on, the middle of 448 and 480
                        : rest < 121u << 23               ? subnormal
                                                          : normal;
  return static_cast<uint8_t>(sign | code);
}

std::string fp8_scale_name(std::string_view weight) {
  return weight.ends_with(".weight") ? std::string(weight) + "_scale_inv" : std::string();
}

std::vector<int64_t> fp8_scale_shape(int64_t rows, int64_t cols) {
  const auto blocks = [](int64_t n) { return n / kFp8Block + (n % kFp8Block != 0); };
  return {blocks(rows), blocks(cols)};
}

void dequantise(std::span<const std::byte> codes, std::span<const float> scales, int64_t cols, int64_t begin,
                std::span<float> out) {
  dequantise_as(codes, scales, cols, begin, out);
}
void dequantise(std::span<const std::byte> codes, std::span<const float> scales, int64_t cols, int64_t begin,
                std::span<double> out) {
  dequantise_as(codes, scales, cols, begin, out);
}

void quantise(std::span<const float> values, int64_t cols, std::span<std::byte> codes,
              std::span<float> scales) {
  const auto size = static_cast<int64_t>(values.size());
  const int64_t rows = cols > 0 ? size / cols : 0;
  if (rows < 1 || rows > kFp8Block || rows * cols != size || codes.size() != values.size() ||
      scales.size() != static_cast<size_t>(fp8_scale_shape(rows, cols)[1])) {
    throw std::logic_error("quantise: sizes differ");
  }
  for (size_t b = 0; b < scales.size(); ++b) {
    const int64_t col = static_cast<int64_t>(b) * kFp8Block;
    const Block block{values.data() + col, rows, std::min(kFp8Block, cols - col), cols};
    scales[b] = block_scale(block);
    block.each([&](float value, int64_t i) {
      codes[static_cast<size_t>(col + i)] = static_cast<std::byte>(quantised(value, scales[b]));
      return true;
    });
  }
}

}  // namespace dsv3
