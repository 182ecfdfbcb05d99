#pragma once
// One optimizer step, written out: what runs when, unit after unit. Blocks meet at detached boundaries.

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "dsv3/parallel/losses.h"
#include "dsv3/parallel/model.h"
#include "dsv3/parallel/output.h"

namespace dsv3 {

// What finish() hands to the optimizer: gradients are summed in the units, counts in the router states.
struct StepResult {
  Model* model = nullptr;
  StepCounts counts;
};

// Every rank makes the same calls in the same order, a rank without tokens too (micro-batches of no rows).
// After an exception Model::abort_step() is the only call that means anything.
class Step {
 public:
  Step(Model& model, const Batch& batch);
  Step(Step&&) = default;

  const StepCounts& counts() const { return counts_; }
  int64_t valid_tokens() const { return counts_.valid; }

  // Runs the network on a micro-batch of this step's batch, keeping what backward needs.
  Output forward(const MicroBatch& micro, const ForwardOptions& options = {});
  // Walks the units back from the leaves' gradients and adds the balance loss's. Consumes the output.
  void backward(Output&& output);
  // Ends the sums of gradients and router counts over the ranks.
  StepResult finish();

 private:
  void close_grad(const std::vector<FlatUnit*>& units);

  Model* model_;
  StepCounts counts_;
  std::deque<FlatUnit*> reducing_;                           // reductions under way, oldest first
  std::map<int64_t, std::unique_ptr<Unsharded>> kept_ = {};  // reshard = never: by layer, to the step's end
};

}  // namespace dsv3
