#pragma once
// What a step's losses are divided by, and the standard loss.

#include <vector>

#include "dsv3/model/micro_batch.h"
#include "dsv3/parallel/output.h"

namespace dsv3 {

// Sums over the whole step and all ranks.
struct StepCounts {
  int64_t tokens = 0;              // input positions without padding
  int64_t valid = 0;               // targets of the main loss
  std::vector<int64_t> mtp_valid;  // targets of each depth
  int64_t sequences = 0;
};

// Of this rank's micro-batches alone.
StepCounts count_batch(const Batch& batch, int64_t mtp_depth);

// The standard loss, ordinary arithmetic on the leaves: −Σ logp / valid + λ / D · Σ_k −Σ logp_k / valid_k.
struct LossOptions {
  double mtp_lambda = 0;
  bool mtp_count_main = false;  // normalise each depth by the main loss's count, as the report prints
};
struct Losses {
  at::Tensor total;             // in the graph of the leaves, without the balance loss
  at::Tensor lm;                // detached
  std::vector<at::Tensor> mtp;  // detached, each depth's own
};
Losses standard_loss(const Output& output, const StepCounts& counts, const LossOptions& options);

}  // namespace dsv3
