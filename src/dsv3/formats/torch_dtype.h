#pragma once
// How PyTorch names element types in its pickles. Source: torch/storage.py, _new_dtypes and
// _dtype_to_storage_type_map.

#include <optional>
#include <span>
#include <string_view>

#include "dsv3/formats/dtype.h"

namespace dsv3 {

struct TorchDType {
  DType dtype;
  std::string_view global;   // "torch bfloat16"
  std::string_view storage;  // "torch BFloat16Storage"; "torch.storage UntypedStorage" where there is none
};

// All that DType knows, in its order.
std::span<const TorchDType> torch_dtypes();
const TorchDType& torch_dtype(DType dtype);
// By the global of the dtype; nothing for others.
std::optional<DType> dtype_of_torch(std::string_view global);

}  // namespace dsv3
