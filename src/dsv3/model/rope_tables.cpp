#include "dsv3/model/rope_tables.h"

#include <cmath>
#include <numbers>

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// Index of the pair that turns `rotations` times within the original context.
double correction_index(double rotations, double dim, double theta, double context) {
  return dim * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

// Slow pairs are interpolated by `factor`, fast ones kept, a linear ramp in between (YaRN, section 3.2).
at::Tensor inverse_frequencies(const ModelConfig& config, const at::TensorOptions& options) {
  const int64_t dim = config.qk_rope_head_dim;
  const at::Tensor kept =
      at::pow(config.rope_theta, at::arange(0, dim, 2, options) / static_cast<double>(dim)).reciprocal();
  if (!config.yarn) return kept;
  const YarnConfig& yarn = *config.yarn;
  const double context = static_cast<double>(yarn.original_max_position_embeddings);
  double low = correction_index(yarn.beta_fast, dim, config.rope_theta, context);
  double high = correction_index(yarn.beta_slow, dim, config.rope_theta, context);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;  // no division by zero
  const at::Tensor ramp = ((at::arange(dim / 2, options) - low) / (high - low)).clamp_(0, 1);
  return (kept / yarn.factor) * ramp + kept * (1 - ramp);
}

double attention_factor(const ModelConfig& config) {
  if (!config.yarn) return 1.0;
  const YarnConfig& yarn = *config.yarn;
  if (yarn.attention_factor) return *yarn.attention_factor;
  const double mscale = yarn.mscale.value_or(0), all_dim = yarn.mscale_all_dim.value_or(0);
  if (mscale != 0 && all_dim != 0)
    return yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, all_dim);
  return yarn_mscale(yarn.factor, 1);
}

}  // namespace

RopeTables rope_tables(const ModelConfig& config, const at::Tensor& positions_BS, at::ScalarType dtype) {
  const at::Tensor frequency_P = inverse_frequencies(config, positions_BS.options().dtype(dtype));
  const at::Tensor angle_BSP = positions_BS.to(dtype).unsqueeze(-1) * frequency_P;
  const double factor = attention_factor(config);
  return {angle_BSP.cos().mul_(factor), angle_BSP.sin().mul_(factor)};
}

double attention_scale(const ModelConfig& config) {
  const double scale = 1 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (!config.yarn || config.yarn->mscale_all_dim.value_or(0) == 0) return scale;
  const double mscale = yarn_mscale(config.yarn->factor, *config.yarn->mscale_all_dim);
  return scale * mscale * mscale;
}

}  // namespace dsv3
