#pragma once
// Which implementation the operators take, and the dtype rules that they share.

#include <ATen/core/Tensor.h>

#include <string>

namespace dsv3 {

enum class Backend : int {
  aten,  // public ATen operators at the tensor's dtype: the oracle, and what every device runs
  fast,  // CPU kernels where ATen's are slow; elsewhere the same as aten
};
enum class GroupedGemm : int { automatic, loop, mkl, grouped_mm };
enum class AttentionKind : int { automatic, flash, flash_padded, cudnn, math };

struct OpsOptions {
  Backend backend = Backend::fast;
  GroupedGemm grouped = GroupedGemm::automatic;
  AttentionKind attention = AttentionKind::automatic;

  bool fast_on(const at::Tensor& x) const { return backend == Backend::fast && x.is_cpu(); }
  // The strings of the run file's [ops]; UsageError naming key and value on an impossible pair.
  static OpsOptions parse(const std::string& backend, const std::string& grouped,
                          const std::string& attention);
};

// fp64 stays; everything else computes in fp32: norms, router, softmax, loss, gradients.
inline at::ScalarType at_least_fp32(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace dsv3
