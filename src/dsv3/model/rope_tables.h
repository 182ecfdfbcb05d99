#pragma once
// Angles of the rotary embedding and the scale of attention scores, with YaRN (arXiv 2309.00071) as the
// released DeepSeek-V3 uses it.

#include "dsv3/config/model_config.h"
#include "dsv3/ops/rope.h"

namespace dsv3 {

// positions_BS: int64. dtype: fp32 or fp64. Scaled by YaRN's attention factor (1 when mscale equals
// mscale_all_dim).
RopeTables rope_tables(const ModelConfig& config, const at::Tensor& positions_BS, at::ScalarType dtype);

// 1 / sqrt(qk head dim) · mscale², mscale = 0.1 · mscale_all_dim · ln(factor) + 1 under YaRN.
double attention_scale(const ModelConfig& config);

}  // namespace dsv3
