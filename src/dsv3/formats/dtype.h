#pragma once
// Element types of tensors on disk.

#include <cstdint>

namespace dsv3 {

enum class DType : int { f64, f32, f16, bf16, f8_e4m3, i64, i32, i16, i8, u64, u32, u16, u8, boolean };
const char* dtype_name(DType dtype);  // as in a safetensors header: "F64", "BF16", "F8_E4M3", "BOOL", …
int64_t dtype_size(DType dtype);      // bytes

}  // namespace dsv3
