#pragma once
// Tokens to the ranks that hold their experts, and back. Implementations: local (here) and all-to-all
// (parallel/all_to_all.h).

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dsv3/ops/permute.h"
#include "dsv3/ops/router.h"

namespace dsv3 {

// Where the choices of one layer and micro-batch go. Made once from the routing; recomputation uses it again,
// so counts are read and exchanged once. e: experts of this rank, R: rows that it receives.
struct DispatchPlan {
  Permutation permutation;  // choices t · K + k to the rows that this rank sends
  std::vector<int64_t>
      rows_e;  // rows that arrive for each local expert, sum R; the only thing read on the host
  // All-to-all only: rows by (local expert of the peer, peer), in the order of the buffers sent and received.
  std::vector<int64_t> send, recv;
  std::string unit;  // for errors and logs: "layer 3"
};
using PlanPtr = std::shared_ptr<const DispatchPlan>;

struct Exchange;  // an all-to-all of rows, under way in forward or in backward

// Rows on their way: what receive() needs.
struct SentRows {
  PlanPtr plan;
  at::Tensor x_RH, weight_R;
  std::shared_ptr<Exchange> x_exchange, weight_exchange;  // null where nothing travels
};

// Expert-major rows of this rank's experts: x_RH, and at least fp32 weight_R, their routing weights.
struct ExpertRows {
  at::Tensor x_RH, weight_R;
};

// Everything is in the autograd graph; backward sends gradients the other way. Exact at any load: nothing is
// dropped, experts and ranks may be without a token.
class ExpertDispatch {
 public:
  virtual ~ExpertDispatch() = default;
  virtual PlanPtr plan(const at::Tensor& ids_TK, const std::string& unit) const = 0;
  // Starts moving x_TH and weight_TK. What is computed before receive() runs while rows travel; so does, in
  // backward, the backward of it.
  virtual SentRows send(const OpsOptions& ops, const at::Tensor& x_TH, const at::Tensor& weight_TK,
                        PlanPtr plan) const = 0;
  virtual ExpertRows receive(SentRows sent) const = 0;
  // Takes the experts' rows back and sums those of each token in top-k order → [T, H].
  virtual at::Tensor combine(const OpsOptions& ops, const at::Tensor& y_RH, const PlanPtr& plan) const = 0;
};

// Gives the number of choices of each of `experts`; replaced where tensors hold no data (meta).
using CountSource = std::function<std::vector<int64_t>(const at::Tensor& ids_TK, int64_t experts)>;
std::vector<int64_t> counts_on_host(const at::Tensor& ids_TK, int64_t experts);

// All experts in this process.
std::unique_ptr<ExpertDispatch> local_dispatch(int64_t experts, CountSource counts = counts_on_host);

}  // namespace dsv3
