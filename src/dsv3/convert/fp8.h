#pragma once
// Weights as DeepSeek-V3 publishes them: FP8 of 4 exponent and 3 mantissa bits (torch.float8_e4m3fn) and one
// fp32 scale for every block of 128 x 128, beside them as NAME_scale_inv: value = code * scale. Source: arXiv
// 2412.19437, section 3.3; inference/kernel.py of the release; OCP OFP8 for the codes.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsv3 {

inline constexpr int64_t kFp8Block = 128;     // rows and columns; blocks at the edges may be smaller
inline constexpr float kFp8Largest = 448.0f;  // of a code; there are no infinities, 0x7f and 0xff are NaN

float decode_e4m3(uint8_t code);
// To nearest, ties to even; beyond 448, infinities too, 448 of that sign; NaN stays NaN.
uint8_t encode_e4m3(float value);

// "NAME.weight_scale_inv" for "NAME.weight"; empty for another name, which has no scales.
std::string fp8_scale_name(std::string_view weight);
// [ceil(rows / 128), ceil(cols / 128)].
std::vector<int64_t> fp8_scale_shape(int64_t rows, int64_t cols);

// Elements [begin, begin + codes.size()) of a row-major matrix of `cols` columns. scales: rows of blocks from
// the one of element `begin` on, ceil(cols / 128) each, as many as the range touches. Exact in double (a
// product of 4 and 24 bits), rounded once in float. std::logic_error when a size does not fit.
void dequantise(std::span<const std::byte> codes, std::span<const float> scales, int64_t cols, int64_t begin,
                std::span<float> out);
void dequantise(std::span<const std::byte> codes, std::span<const float> scales, int64_t cols, int64_t begin,
                std::span<double> out);

// One row of blocks: values [rows, cols], 1 to 128 rows, to codes [rows, cols] and ceil(cols / 128) scales.
//   scale = largest finite magnitude / 448; 1 for a block of zeros. What is not finite becomes NaN: FP8 has
//   no infinity, and 448 * scale would hide that something was wrong.
// Where a block's values are products of codes with one scale, rounded to fp32 (dequantised FP8), such a
// scale is found, whatever it and the codes are, and the values come back exactly. So do the bytes, if the
// largest code is one of 240 to 448 and the block has codes enough to tell the scale; else they may be others
// of the same values, as twice the codes at half the scale. Of products that were rounded to bf16 on the
// way the codes come back likewise, with a scale within 2^-8 of the old one that makes the same bf16 of them.
void quantise(std::span<const float> values, int64_t cols, std::span<std::byte> codes,
              std::span<float> scales);

}  // namespace dsv3
