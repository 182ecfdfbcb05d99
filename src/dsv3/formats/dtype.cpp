#include "dsv3/formats/dtype.h"

namespace dsv3 {

const char* dtype_name(DType dtype) {
  static constexpr const char* kNames[] = {"F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32",
                                           "I16", "I8",  "U64", "U32",  "U16",     "U8",  "BOOL"};
  return kNames[static_cast<int>(dtype)];
}

int64_t dtype_size(DType dtype) {
  static constexpr int64_t kSizes[] = {8, 4, 2, 2, 1, 8, 4, 2, 1, 8, 4, 2, 1, 1};
  return kSizes[static_cast<int>(dtype)];
}

}  // namespace dsv3
