#include "dsv3/convert/fp8.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "convert/hf_case.h"
#include "dsv3/base/philox.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/hf_weights.h"

namespace dsv3 {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// Written by tools/golden/fp8.py with torch.
test::StoredTensors golden(const std::string& file) {
  return test::load_tensors(std::filesystem::path(DSV3_SOURCE_DIR) / "tests/convert/fp8" / file);
}
template <class T>
std::vector<T> values_of(const test::StoredTensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}
float bf16(int bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// quantise() and dequantise() of a whole matrix.
struct Matrix {
  std::vector<std::byte> codes;
  std::vector<float> scales;
  bool operator==(const Matrix&) const = default;
};
Matrix quantised(const std::vector<float>& values, int64_t cols) {
  const int64_t rows = static_cast<int64_t>(values.size()) / cols;
  const auto shape = fp8_scale_shape(rows, cols);
  const auto width = static_cast<size_t>(shape[1]);
  Matrix m{std::vector<std::byte>(values.size()), std::vector<float>(static_cast<size_t>(shape[0]) * width)};
  for (int64_t row = 0; row < rows; row += kFp8Block) {
    const auto begin = static_cast<size_t>(row * cols);
    const auto count = static_cast<size_t>(std::min(kFp8Block, rows - row) * cols);
    quantise(std::span(values).subspan(begin, count), cols, std::span(m.codes).subspan(begin, count),
             std::span(m.scales).subspan(static_cast<size_t>(row / kFp8Block) * width, width));
  }
  return m;
}
template <class T = float>
std::vector<T> dequantised(const Matrix& m, int64_t cols) {
  std::vector<T> out(m.codes.size());
  dequantise(m.codes, m.scales, cols, 0, std::span(out));
  return out;
}

TEST(E4m3, EveryCodeIsTorchs) {
  const auto values = values_of<float>(golden("expected.safetensors").at("values"));
  for (int code = 0; code < 256; ++code) {
    const float value = decode_e4m3(static_cast<uint8_t>(code)), expected = values[static_cast<size_t>(code)];
    EXPECT_TRUE(value == expected || (std::isnan(value) && std::isnan(expected))) << code;
    EXPECT_EQ(std::signbit(value), std::signbit(expected)) << code;
    EXPECT_EQ(encode_e4m3(value), code);
  }
  EXPECT_EQ(decode_e4m3(0x7e), kFp8Largest);
}

TEST(E4m3, EveryBf16BecomesTorchsCode) {
  const auto firsts = values_of<int32_t>(golden("expected.safetensors").at("firsts"));
  ASSERT_EQ(firsts.size(), 126u);
  int code = 0;
  for (int bits = 0; bits <= 0x7f80; ++bits) {
    while (code < 126 && firsts[static_cast<size_t>(code)] <= bits) ++code;
    ASSERT_EQ(encode_e4m3(bf16(bits)), code) << bits;
    ASSERT_EQ(encode_e4m3(bf16(bits | 0x8000)), code | 0x80) << bits;
  }
  for (int bits = 0x7f81; bits < 0x8000; ++bits) {
    EXPECT_EQ(encode_e4m3(bf16(bits)), 0x7f);
    EXPECT_EQ(encode_e4m3(bf16(bits | 0x8000)), 0xff);
  }
}

// Between each two neighbours: the middle goes to the even one, a hair more or less to the nearer one.
TEST(E4m3, RoundsToNearestEven) {
  for (uint8_t code = 0; code < 0x7e; ++code) {
    const float low = decode_e4m3(code), high = decode_e4m3(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(encode_e4m3(middle), code + (code & 1));
    EXPECT_EQ(encode_e4m3(-middle), 0x80 | (code + (code & 1)));
    EXPECT_EQ(encode_e4m3(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(encode_e4m3(std::nextafter(middle, kInf)), code + 1);
  }
  for (float value : {448.0f, 463.99997f, 464.0f, 464.00003f, 480.0f, 1e30f, kInf}) {
    EXPECT_EQ(encode_e4m3(value), 0x7e) << value;
  }
  EXPECT_EQ(encode_e4m3(std::bit_cast<float>(0x7f800001)), 0x7f) << "the least payload";
  EXPECT_EQ(encode_e4m3(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(Fp8Blocks, TorchsMatrix) {
  const auto model = golden("model.safetensors"), expected = golden("expected.safetensors");
  constexpr int64_t kRows = 129, kCols = 131;
  std::vector<float> weight(kRows * kCols);
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kCols; ++j) {
      const auto value = (i * 7919 + j * 104729 + i * j * 31) % 65521 - 32760;
      weight[static_cast<size_t>(i * kCols + j)] = static_cast<float>(value) * 0x1p-18f;
    }
  }
  const Matrix ours = quantised(weight, kCols);
  EXPECT_EQ(ours.codes, model.at("a.weight").bytes);
  EXPECT_EQ(ours.scales, values_of<float>(model.at("a.weight_scale_inv")));

  const HfWeights weights(std::filesystem::path(DSV3_SOURCE_DIR) / "tests/convert/fp8");
  std::vector<float> whole(kRows * kCols);
  weights.read(*weights.find("a.weight"), 0, std::span(whole));
  const auto rows = values_of<float>(expected.at("rows")), cols = values_of<float>(expected.at("cols"));
  constexpr size_t kRowsThere[] = {0, 127, 128}, kColsThere[] = {0, 127, 128, 130};
  for (size_t j = 0; j < kCols; ++j) {
    for (size_t r = 0; r < 3; ++r) EXPECT_EQ(whole[kRowsThere[r] * kCols + j], rows[r * kCols + j]);
  }
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t c = 0; c < 4; ++c) EXPECT_EQ(whole[i * kCols + kColsThere[c]], cols[4 * i + c]);
  }
}

TEST(Fp8Blocks, RangesOfRaggedMatrices) {
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 1}, {300, 1}, {1, 300}, {128, 128}, {257, 129}}) {
    std::vector<float> values(static_cast<size_t>(rows * cols));
    philox_normal(values, 1.0, 7, 1, 0);
    const Matrix m = quantised(values, cols);
    const auto whole = dequantised(m, cols);
    const auto width = static_cast<size_t>(fp8_scale_shape(rows, cols)[1]);
    for (size_t i = 0; i < whole.size(); ++i) {  // by the definition
      const auto row = static_cast<int64_t>(i) / cols, col = static_cast<int64_t>(i) % cols;
      const float scale = m.scales[static_cast<size_t>(row / 128) * width + static_cast<size_t>(col / 128)];
      ASSERT_EQ(whole[i], decode_e4m3(static_cast<uint8_t>(m.codes[i])) * scale);
      // 3 bits of fraction: half a step is a sixteenth; below 2^-6 half a step is 2^-10.
      ASSERT_LE(std::abs(whole[i] - values[i]),
                std::max(std::abs(values[i]) / 16, scale * 0x1p-10f) * 1.00001f);
    }
    const int64_t size = rows * cols;
    for (int64_t begin : {int64_t{0}, int64_t{1}, size / 3, size / 2, size - 1, size}) {
      for (int64_t end : {begin, std::min(begin + 1, size), (begin + size) / 2, size}) {
        const auto first = static_cast<size_t>(begin / cols / 128) * width;
        std::vector<float> part(static_cast<size_t>(end - begin));
        dequantise(std::span(m.codes).subspan(static_cast<size_t>(begin), part.size()),
                   std::span(m.scales).subspan(std::min(first, m.scales.size())), cols, begin, part);
        ASSERT_EQ(part, std::vector<float>(whole.begin() + begin, whole.begin() + end));
      }
    }
  }
}

TEST(Fp8Blocks, ZerosAndWhatIsNotFinite) {
  std::vector<float> values(128 * 256);
  EXPECT_EQ(quantised(values, 256).scales, (std::vector<float>{1, 1}));
  values[3] = kNan;
  values[128] = -kInf;
  values[129] = 448;
  values[130] = -0.0f;
  const Matrix m = quantised(values, 256);
  EXPECT_EQ(m.scales, (std::vector<float>{1, 1}));
  const auto back = dequantised(m, 256);
  EXPECT_TRUE(std::isnan(back[3]));
  EXPECT_TRUE(std::isnan(back[128]));
  EXPECT_EQ(back[129], 448);
  EXPECT_TRUE(std::signbit(back[130]));
  EXPECT_EQ(back[4], 0);
  // The least and the greatest magnitudes: no scale of zero, no overflow.
  for (float value : {std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()}) {
    const Matrix one = quantised({value}, 1);
    EXPECT_EQ(dequantised(one, 1)[0], value);
    EXPECT_GT(one.scales[0], 0);
  }
}

// Every mantissa of a scale. The values are those of a block with codes 448 and 1 (as good as any odd code or
// power of two: it tells neighbours apart), rounded to fp32 as a reader gives them.
TEST(Fp8Blocks, EveryScaleComesBack) {
  int lost_by_amax = 0;
  for (uint32_t mantissa = 0; mantissa < 1u << 23; ++mantissa) {
    const float scale = std::bit_cast<float>(117u << 23 | mantissa);  // [2^-10, 2^-9)
    const float values[] = {448 * scale, -scale};
    std::byte codes[2];
    float back;
    quantise(values, 2, codes, std::span(&back, 1));
    ASSERT_EQ(back, scale) << mantissa;
    ASSERT_EQ(static_cast<int>(codes[0]), 0x7e);
    ASSERT_EQ(static_cast<int>(codes[1]), 0xb8);
    // Alone, 448 gives back every scale that is a quotient itself, in fp32, and every one in fp64.
    const float quotient = values[0] / 448;
    if (quotient != scale) ++lost_by_amax;
    ASSERT_EQ(448 * quotient / 448, quotient) << mantissa;
    ASSERT_EQ(static_cast<float>(448.0 * scale / 448.0), scale) << mantissa;
  }
  EXPECT_EQ(lost_by_amax, (1 << 23) * 6 / 7 / 8 - 0);
}

// Any codes up to `largest`, which each block holds; scales of any mantissa, or powers of two.
Matrix some_fp8(uint64_t seed, int64_t rows, int64_t cols, float largest, bool powers) {
  const auto shape = fp8_scale_shape(rows, cols);
  Matrix m{std::vector<std::byte>(static_cast<size_t>(rows * cols)),
           std::vector<float>(static_cast<size_t>(shape[0] * shape[1]))};
  const uint8_t top = encode_e4m3(largest);
  for (size_t i = 0; i < m.codes.size(); ++i) {
    const auto bits = philox_u64(seed, 1, i);
    const auto row = static_cast<int64_t>(i) / cols, col = static_cast<int64_t>(i) % cols;
    const bool first = row % kFp8Block == 0 && col % kFp8Block == 0;
    m.codes[i] = static_cast<std::byte>((first ? top : bits % (top + 1u)) | (bits >> 8 & 0x80));
  }
  for (size_t i = 0; i < m.scales.size(); ++i) {
    const auto bits = static_cast<uint32_t>(philox_u64(seed, 2, i));
    m.scales[i] = std::bit_cast<float>((100 + bits % 40) << 23 | (powers ? 0 : bits >> 9));
  }
  return m;
}

// What was FP8 once stays as it is: any codes, any scales, whether a block holds 448 or not.
TEST(Fp8Blocks, DequantisedWeightsGiveTheirBytesBack) {
  constexpr int64_t kRows = 200, kCols = 300;
  uint64_t seed = 0;
  for (const float largest : {448, 416, 384, 352, 320, 288, 256, 240}) {
    for (const bool powers : {false, true}) {
      const Matrix m = some_fp8(++seed, kRows, kCols, largest, powers);
      EXPECT_EQ(quantised(dequantised(m, kCols), kCols), m) << largest << " " << powers;
      EXPECT_EQ(
          dequantised<double>(m, kCols)[777],
          static_cast<double>(decode_e4m3(static_cast<uint8_t>(m.codes[777]))) * m.scales[0 + 177 / 128]);
    }
  }
}

// Smaller codes alone, and blocks of so few that they fit several scales: the same values, whatever the
// bytes.
TEST(Fp8Blocks, DequantisedWeightsGiveTheirValuesBack) {
  constexpr int64_t kRows = 200, kCols = 300;
  for (int code = 1; code <= 0x7e; ++code) {
    for (const bool powers : {false, true}) {
      const auto seed = static_cast<uint64_t>(code);
      const Matrix m = some_fp8(seed, kRows, kCols, decode_e4m3(static_cast<uint8_t>(code)), powers);
      const auto values = dequantised(m, kCols);
      ASSERT_EQ(dequantised(quantised(values, kCols), kCols), values) << code << " " << powers;
      const Matrix few = some_fp8(seed, 1, 2, decode_e4m3(static_cast<uint8_t>(code)), powers);
      ASSERT_EQ(dequantised(quantised(dequantised(few, 2), 2), 2), dequantised(few, 2)) << code;
    }
  }
}

// Through bf16 the codes come back too, and a scale that makes the same bf16 of them.
TEST(Fp8Blocks, DequantisedToBf16TheyGiveTheirCodesBack) {
  constexpr int64_t kRows = 200, kCols = 300;
  const auto rounded = [](std::vector<float> values) {
    std::vector<std::byte> bytes(2 * values.size());
    encode(values, DType::bf16, bytes);
    decode(DType::bf16, bytes, values);
    return values;
  };
  uint64_t seed = 100;
  for (const float largest : {448, 416, 384, 352, 320, 288, 256, 240}) {
    const Matrix m = some_fp8(++seed, kRows, kCols, largest, false);
    const auto values = rounded(dequantised(m, kCols));
    const Matrix back = quantised(values, kCols);
    EXPECT_EQ(back.codes, m.codes) << largest;
    EXPECT_EQ(rounded(dequantised(back, kCols)), values) << largest;
    for (size_t i = 0; i < m.scales.size(); ++i) EXPECT_NEAR(back.scales[i] / m.scales[i], 1, 0x1p-8);
  }
}

// Every block of our own making holds 448, so a second round changes nothing.
TEST(Fp8Blocks, TheSecondRoundChangesNothing) {
  std::vector<float> values(256 * 256);
  philox_normal(values, 0.02, 3, 1, 0);
  const Matrix once = quantised(values, 256);
  EXPECT_EQ(quantised(dequantised(once, 256), 256), once);
}

TEST(Fp8Blocks, CallersMistakes) {
  std::vector<float> values(256), scales(1);
  std::vector<std::byte> codes(256);
  EXPECT_THROW(quantise(values, 0, codes, scales), std::logic_error);
  EXPECT_THROW(quantise(values, 255, codes, scales), std::logic_error);
  EXPECT_THROW(quantise(values, 1, codes, scales), std::logic_error) << "256 rows";
  EXPECT_THROW(quantise(values, 256, codes, scales), std::logic_error) << "two blocks";
  EXPECT_THROW(dequantise(codes, scales, 256, 0, std::span(values)), std::logic_error);
  EXPECT_THROW(dequantise(codes, scales, 1, 0, std::span(values)), std::logic_error);
  EXPECT_THROW(dequantise(codes, scales, 128, -1, std::span(values)), std::logic_error);
  EXPECT_NO_THROW(dequantise(codes, scales, 128, 0, std::span(values)));
  EXPECT_EQ(fp8_scale_name("a.weight"), "a.weight_scale_inv");
  EXPECT_EQ(fp8_scale_name("a.bias"), "");
  EXPECT_EQ(fp8_scale_shape(576, 7168), (std::vector<int64_t>{5, 56}));
}

}  // namespace
}  // namespace dsv3
