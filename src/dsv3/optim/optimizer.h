#pragma once
// AdamW on the flat shards, global-norm clipping, the skip rule and the router-bias update.

#include "dsv3/config/run_config.h"
#include "dsv3/parallel/step.h"

namespace dsv3 {

struct StepInfo {
  double grad_norm = 0;  // before clipping, over every trainable parameter once
  bool skipped = false;  // non-finite: weights, moments, Adam's t and router bias are as they were
};

class Optimizer {
 public:
  // Moments live beside the model's shards: fp32, or bf16 with optim.moments = "bf16" (fp64 when training in
  // fp64).
  Optimizer(Model& model, const OptimConfig& config);

  // Clips by the global norm, updates the weights with learning rate lr, and moves each router's bias by
  // gamma · sign(mean(count) − count). loss_finite = false on any rank skips on all, as a non-finite gradient
  // does.
  StepInfo step(const StepResult& result, double lr, double gamma, bool loss_finite = true);

  // What a checkpoint holds of it: the moments of every trainable unit, and Adam's t.
  struct Moments {
    FlatUnit* unit;
    at::Tensor first, second;  // of the shard
  };
  const std::vector<Moments>& moments() const { return moments_; }
  int64_t updates() const { return t_; }
  void set_updates(int64_t updates) { t_ = updates; }

 private:
  void update(Moments& moments, const FlatUnit::Range& range, double lr);

  Model& model_;
  OptimConfig config_;
  std::vector<Moments> moments_;
  int64_t t_ = 0;  // updates done
};

// Square root of the sum of squares of every parameter's gradient, each element once over all ranks of a
// copy, summed in fp64: fp32 sums are off by 1e-2 on 100M elements (docs/design.md). All ranks call it.
double gradient_norm(const Model& model);

// b += gamma · sign(mean(count) − count), in integers: sign(total − E · count).
void update_router_bias(RouterState& state, double gamma);

}  // namespace dsv3
