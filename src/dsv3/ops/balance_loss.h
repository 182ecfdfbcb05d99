#pragma once
// Auxiliary balance losses of the routed experts, arXiv 2412.19437, section 2.1.2.

#include "dsv3/ops/router.h"

namespace dsv3 {

enum class BalanceKind : int { none, batch, sequence };
enum class BalanceIndicator : int {
  unbiased,  // counts the top-k of the unbiased scores over all experts, as the report prints
  selected,  // counts the actual selection
};

struct BalanceOptions {
  BalanceKind kind = BalanceKind::none;
  BalanceIndicator indicator = BalanceIndicator::unbiased;
  double alpha = 0;
};

// Σ_i f_i P_i with f_i = E / (K T) · count_i and P_i = mean over valid tokens of s_i / Σ_j s_j, as a scalar
// in the graph: the sum over the sequences of their own values (sequence), or B times the value of all tokens
// (batch); times alpha. The caller divides by the global number of sequences. T counts valid tokens; a
// sequence without any gives 0. routing holds T = sequences · S tokens, sequence after sequence; valid_T:
// bool or undefined.
at::Tensor balance_loss(const Routing& routing, const at::Tensor& valid_T, int64_t sequences,
                        const BalanceOptions& options);

}  // namespace dsv3
