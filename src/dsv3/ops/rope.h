#pragma once
// Rotary position embedding with YaRN (arXiv 2309.00071), as the released DeepSeek-V3 uses it.

#include <ATen/core/Tensor.h>

#include <optional>

#include "dsv3/config/model_config.h"

namespace dsv3 {

// One angle per pair of rope dims: cos_BSP and sin_BSP, P = qk_rope_head_dim / 2, at least fp32, scaled by YaRN's
// attention factor (1 when mscale equals mscale_all_dim).
struct RopeTables {
  at::Tensor cos, sin;
};
// positions_BS: int64. dtype: fp32 or fp64.
RopeTables rope_tables(const ModelConfig& config, const at::Tensor& positions_BS, at::ScalarType dtype);

// 1 / sqrt(qk head dim) · mscale², mscale = 0.1 · mscale_all_dim · ln(factor) + 1 under YaRN.
double attention_scale(const ModelConfig& config);

// Rotates x: [B, S, N, 2P], whose pairs are interleaved (2i, 2i + 1) as in the weights. The result holds the first
// halves of the pairs, then the second: a permutation that q and k share, so that scores are unchanged.
at::Tensor rope(const at::Tensor& x_BSNR, const RopeTables& tables);

}  // namespace dsv3
