#pragma once
// Rotary position embedding, arXiv 2104.09864.

#include <ATen/core/Tensor.h>

namespace dsv3 {

// One angle per pair of rope dims: cos and sin [B, S, P] or [1, S, P], at least fp32.
struct RopeTables {
  at::Tensor cos, sin;
};

// Rotates x: [B, S, N, 2P], whose pairs are interleaved (2i, 2i + 1) as in the weights. The result holds the
// first halves of the pairs, then the second: a permutation that q and k share, so that scores are unchanged.
at::Tensor rope(const at::Tensor& x_BSNR, const RopeTables& tables);

}  // namespace dsv3
