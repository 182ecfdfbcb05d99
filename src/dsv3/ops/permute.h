#pragma once
// Tokens to expert-major rows and back.

#include "dsv3/ops/options.h"

namespace dsv3 {

// Where each choice went. Row r holds choice order_R[r] = t · K + k; choice j lies in row place_TK[j].
struct Permutation {
  at::Tensor order_R, place_TK;  // int64, R = T · K, both flat
  int64_t top_k = 1;
};

// Sorts choices by expert, keeping the order of tokens inside one (so that equal routing gives equal bits).
Permutation permutation_of(const at::Tensor& ids_TK, int64_t experts);

// x_TH → rows_RH. Backward sums a token's K rows in top-k order.
at::Tensor permute(const OpsOptions& ops, const at::Tensor& x_TH, const Permutation& permutation);

// rows_RH → y_TH, the sum of each token's K rows in top-k order, at least in fp32, rounded once.
at::Tensor unpermute(const OpsOptions& ops, const at::Tensor& rows_RH, const Permutation& permutation);

// weight_TK → weight_R, in the order of rows.
at::Tensor permute_weights(const at::Tensor& weight_TK, const Permutation& permutation);

}  // namespace dsv3
