#pragma once
// One optimizer step, written out: what runs when, unit after unit. Blocks meet at detached boundaries.

#include <map>
#include <memory>
#include <vector>

#include "dsv3/parallel/model.h"

namespace dsv3 {

struct ForwardOptions {
  std::vector<int64_t> hidden;  // blocks whose output is wanted, 0 … L − 1
  VocabFunction vocab;          // a loss over the whole vocabulary, see token_logprob
  bool logits = false;          // whole logits, outside the graph (trace; memory of B · S · V)
  bool routing = false;         // routing of every layer, outside the graph
};

// The leaves that a loss is written on: after loss.backward() their grad() is what Step::backward reads; an
// undefined grad is zero. Several may be alive at once.
struct Output {
  struct Depth {
    at::Tensor logp_BS;     // log-probability of the target, at least fp32; 0 where the target is −100
    at::Tensor extra_BS;    // ForwardOptions::vocab of the main model; undefined without
    at::Tensor logits_BSV;  // ForwardOptions::logits
  };
  at::Tensor logp_BS, extra_BS, logits_BSV;
  std::vector<Depth> mtp;                // depth 1 … D
  std::map<int64_t, at::Tensor> hidden;  // block → [B, S, H]
  std::map<int64_t, Routing> routing;    // layer → its routing, detached
  at::Tensor balance_loss;               // detached scalar: this micro-batch's share of the global mean

  struct Tape;
  std::shared_ptr<Tape> tape;  // boundaries; empty without a graph
};

// Sums over the whole step and all ranks.
struct StepCounts {
  int64_t tokens = 0;              // input positions without padding
  int64_t valid = 0;               // targets of the main loss
  std::vector<int64_t> mtp_valid;  // targets of each depth
  int64_t sequences = 0;
};

// What finish() hands to the optimizer: gradients are summed in the units, counts in the router states.
struct StepResult {
  Model* model = nullptr;
  StepCounts counts;
};

class Step {
 public:
  Step(Model& model, const Batch& batch);

  const StepCounts& counts() const { return counts_; }
  int64_t valid_tokens() const { return counts_.valid; }

  // Runs the network on a micro-batch of this step's batch, keeping what backward needs.
  Output forward(const MicroBatch& micro, const ForwardOptions& options = {});
  // Walks the units back from the leaves' gradients and adds the balance loss's. Consumes the output.
  void backward(Output&& output);
  StepResult finish();

 private:
  Model& model_;
  StepCounts counts_;
};

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
StepCounts count_batch(const Batch& batch, int64_t mtp_depth);

}  // namespace dsv3
