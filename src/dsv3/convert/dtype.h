#pragma once
// Tensor bytes to numbers and back: F64, F32, F16 and BF16, little-endian, in portable C++.

#include <cstddef>
#include <span>

#include "dsv3/formats/safetensors.h"

namespace dsv3 {

// Whether decode() reads it.
bool is_float(DType dtype);

// bytes.size() = out.size() * dtype_size(dtype). Exact but for F64 to float, which rounds to nearest.
void decode(DType dtype, std::span<const std::byte> bytes, std::span<float> out);
void decode(DType dtype, std::span<const std::byte> bytes, std::span<double> out);

// To F32, F16 or BF16: to nearest, ties to even; larger than the largest becomes infinite, NaN stays NaN.
void encode(std::span<const float> values, DType dtype, std::span<std::byte> out);

}  // namespace dsv3
