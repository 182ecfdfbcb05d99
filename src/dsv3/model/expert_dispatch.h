#pragma once
// Tokens to the ranks that hold their experts, and back.

#include <functional>
#include <memory>
#include <vector>

#include "dsv3/ops/permute.h"
#include "dsv3/ops/router.h"

namespace dsv3 {

// Everything that combine and both backward passes need.
struct DispatchHandle {
  Permutation permutation;
};

struct Dispatched {
  at::Tensor x_RH;              // expert-major rows of this rank's experts
  at::Tensor weight_R;          // their routing weights
  std::vector<int64_t> rows_e;  // rows of each local expert; the only thing read on the host
  DispatchHandle handle;
};

class ExpertDispatch {
 public:
  virtual ~ExpertDispatch() = default;
  virtual Dispatched dispatch(const OpsOptions& ops, const at::Tensor& x_TH,
                              const Routing& routing) const = 0;
  // Sums the rows of each token in top-k order → [T, H].
  virtual at::Tensor combine(const OpsOptions& ops, const at::Tensor& y_RH,
                             const DispatchHandle& handle) const = 0;
};

// Gives rows_e for ids_TK; replaced where tensors hold no data (meta).
using CountSource = std::function<std::vector<int64_t>(const at::Tensor& ids_TK, int64_t experts)>;
std::vector<int64_t> counts_on_host(const at::Tensor& ids_TK, int64_t experts);

// All experts in this process.
std::unique_ptr<ExpertDispatch> local_dispatch(int64_t experts, CountSource counts = counts_on_host);

}  // namespace dsv3
