#pragma once
// Sigmoid gate with node-limited top-k and a correction bias, arXiv 2412.19437, section 2.1.2.

#include "dsv3/ops/options.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

struct RouterOptions {
  int64_t top_k = 1;
  int64_t groups = 1, kept_groups = 1;
  double scale = 1;       // routed_scaling_factor
  bool normalise = true;  // norm_topk_prob
};

struct Routing {
  at::Tensor ids_TK;     // int64, in the order in which the combine sums
  at::Tensor weight_TK;  // at least fp32, in the graph
  at::Tensor scores_TE;  // sigmoid, unbiased, in the graph
};

// x: [T, H] any float; w: [E, H]; logits and sigmoid are computed at least in fp32. bias_E moves the choice,
// never the weight; it has no gradient. Scores for the choice are sigmoid + bias; a group's score is the sum
// of its two best; experts of dropped groups are −inf; ties go to the lowest index. replay_TK: int64 ids to
// use instead of choosing (recomputation, trace), or undefined. T = 0 is valid.
Routing router(const at::Tensor& x_TH, Param& w_EH, const at::Tensor& bias_E, const RouterOptions& options,
               const at::Tensor& replay_TK = {});

// The choice alone: scores_TE + bias_E → ids_TK.
at::Tensor select_experts(const at::Tensor& scores_TE, const at::Tensor& bias_E,
                          const RouterOptions& options);

// Tokens of each expert: int64 [E]. valid_T: bool, only these tokens count, or undefined.
at::Tensor count_tokens(const at::Tensor& ids_TK, const at::Tensor& valid_T, int64_t experts);

}  // namespace dsv3
