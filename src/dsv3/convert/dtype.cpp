#include "dsv3/convert/dtype.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace dsv3 {
namespace {

float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t nan = bits >> 16 | 0x40;  // quiet: a payload that is cut to zero would be infinity
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

// Selects instead of branches: every case is computed. The bias of the exponent grows by 127 - 15 = 112.
float from_f16(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, rest = static_cast<uint32_t>(x & 0x7fff)
                                                                        << 13;
  const uint32_t normal = rest + (112u << 23);
  // 2^-14 · (1 + fraction) - 2^-14: what a subnormal is worth.
  const float subnormal = std::bit_cast<float>(rest + (113u << 23)) - std::bit_cast<float>(113u << 23);
  const uint32_t special = rest | 0x7f800000;
  const uint32_t bits = rest < 1u << 23    ? std::bit_cast<uint32_t>(subnormal)
                        : rest < 31u << 23 ? normal
                                           : special;
  return std::bit_cast<float>(sign | bits);
}

uint16_t to_f16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  const uint32_t normal = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13;
  // 0.5 has 2^-24, the step of the subnormals, as its last bit: the addition rounds.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) + 0.5f) - 0x3f000000;
  const uint32_t nan = 0x7e00 | (rest >> 13 & 0x3ff);
  const uint32_t half = rest > 0x7f800000    ? nan
                        : rest >= 0x477ff000 ? 0x7c00  // from 65520 on: infinite
                        : rest < 0x38800000  ? subnormal
                                             : normal;
  return static_cast<uint16_t>(sign | half);
}

// The bytes may begin anywhere: memcpy is the portable load, and one instruction.
template <class Stored, class T, class Convert>
void decode_each(std::span<const std::byte> bytes, std::span<T> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored x;
    std::memcpy(&x, bytes.data() + i * sizeof x, sizeof x);
    out[i] = static_cast<T>(convert(x));
  }
}

template <class Stored, class Convert>
void encode_each(std::span<const float> values, std::span<std::byte> out, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    const Stored x = convert(values[i]);
    std::memcpy(out.data() + i * sizeof x, &x, sizeof x);
  }
}

void check_size(size_t bytes, size_t count, DType dtype) {
  if (bytes != count * static_cast<size_t>(dtype_size(dtype))) throw std::logic_error("decode: sizes differ");
}

template <class T>
void decode_as(DType dtype, std::span<const std::byte> bytes, std::span<T> out) {
  check_size(bytes.size(), out.size(), dtype);
  const auto same = [](auto x) { return x; };
  switch (dtype) {
    case DType::f64:
      return decode_each<double>(bytes, out, same);
    case DType::f32:
      return decode_each<float>(bytes, out, same);
    case DType::f16:
      return decode_each<uint16_t>(bytes, out, from_f16);
    case DType::bf16:
      return decode_each<uint16_t>(bytes, out, from_bf16);
    default:
      throw std::logic_error("decode: not a float dtype");
  }
}

}  // namespace

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

void decode(DType dtype, std::span<const std::byte> bytes, std::span<float> out) {
  decode_as(dtype, bytes, out);
}
void decode(DType dtype, std::span<const std::byte> bytes, std::span<double> out) {
  decode_as(dtype, bytes, out);
}

void encode(std::span<const float> values, DType dtype, std::span<std::byte> out) {
  check_size(out.size(), values.size(), dtype);
  switch (dtype) {
    case DType::f32:
      return encode_each<float>(values, out, [](float x) { return x; });
    case DType::f16:
      return encode_each<uint16_t>(values, out, to_f16);
    case DType::bf16:
      return encode_each<uint16_t>(values, out, to_bf16);
    default:
      throw std::logic_error("encode: expected F32, F16 or BF16");
  }
}

}  // namespace dsv3
