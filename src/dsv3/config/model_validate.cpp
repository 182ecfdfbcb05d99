#include <cmath>

#include "dsv3/base/error.h"
#include "dsv3/config/model_fields.h"

namespace dsv3 {
namespace {

void check_reals(const ModelConfig& config, std::string_view file) {
  for (const RealField& field : real_fields()) {
    const double value = config.*field.member;
    if (!std::isfinite(value) || value <= field.above) {
      throw InputError(file, field.key,
                       shown(value) + ", expected a finite number > " + std::to_string(int(field.above)));
    }
  }
  if (!std::isfinite(config.rope_theta) || config.rope_theta <= 1) {
    throw InputError(file, "rope_theta", shown(config.rope_theta) + ", expected a finite number > 1");
  }
}

void check_optionals(const ModelConfig& config, std::string_view file) {
  for (const OptionalField& field : optional_fields()) {
    const auto& value = config.*field.member;
    const int64_t least = field.member == &ModelConfig::q_lora_rank ? 1 : 0;
    if (value && (*value < least || *value > int64_t{1} << 20)) {
      throw InputError(file, field.key,
                       std::to_string(*value) + ", expected null or " + std::to_string(least) + " to " +
                           std::to_string(1 << 20));
    }
  }
  if (config.pad_token_id && *config.pad_token_id >= config.vocab_size) {
    throw InputError(file, "pad_token_id",
                     std::to_string(*config.pad_token_id) +
                         " is outside the vocabulary, vocab_size = " + std::to_string(config.vocab_size));
  }
}

// semantics.md, "top-k limits": outside them the selection is not defined.
void check_routing(const ModelConfig& config, std::string_view file) {
  const int64_t experts = config.n_routed_experts, groups = config.n_group;
  const auto text = [](int64_t value) { return std::to_string(value); };
  if (experts % groups != 0) {
    throw InputError(file, "n_routed_experts",
                     text(experts) + " is not divisible by n_group = " + text(groups));
  }
  if (groups > 1 && experts / groups < 2) {
    throw InputError(
        file, "n_group",
        text(groups) + " groups of " + text(experts / groups) + " expert, a group's score needs 2");
  }
  if (config.topk_group > groups) {
    throw InputError(file, "topk_group", text(config.topk_group) + " is more than n_group = " + text(groups));
  }
  const int64_t reachable = config.topk_group * (experts / groups);
  if (config.num_experts_per_tok > reachable) {
    throw InputError(file, "num_experts_per_tok",
                     text(config.num_experts_per_tok) + " is more than the " + text(reachable) +
                         " experts of topk_group = " + text(config.topk_group) + " groups");
  }
}

// Each value may be sane and the product absurd: nothing later may allocate by such a size.
void check_total(const ModelConfig& config, std::string_view file) {
  constexpr double kMaxExperts = 1 << 17, kMaxParams = 1e15;
  double blocks = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers + config.num_nextn_predict_layers; ++layer) {
    blocks += config.is_moe(layer);
  }
  const double experts = config.has_moe() ? blocks * config.n_routed_experts : 0;
  if (experts > kMaxExperts) {
    throw InputError(file, "n_routed_experts",
                     shown(experts) + " experts over all layers, the limit is 131072");
  }
  const double layers = config.num_hidden_layers + config.num_nextn_predict_layers;
  const double hidden = config.hidden_size, heads = config.num_attention_heads;
  const double q_rank = config.q_lora_rank.value_or(config.hidden_size);
  const double attention =
      heads * (q_rank * config.qk_head_dim() + hidden * config.v_head_dim +
               config.kv_lora_rank * double(config.qk_nope_head_dim + config.v_head_dim));
  const double total =
      2.0 * config.vocab_size * hidden + layers * (attention + 3 * hidden * config.intermediate_size) +
      (experts + blocks * config.n_shared_experts) * 3 * hidden * config.moe_intermediate_size;
  if (total > kMaxParams) {
    throw InputError(file, "", shown(std::round(total)) + " parameters in all, the limit is 1e15");
  }
}

}  // namespace

void check_range(const IntField& field, const ModelConfig& config, std::string_view file) {
  const int64_t value = config.*field.member;
  if (value < field.min || value > field.max) {
    throw InputError(file, field.key,
                     std::to_string(value) + ", expected " + std::to_string(field.min) + " to " +
                         std::to_string(field.max));
  }
}

void ModelConfig::validate(std::string_view file) const {
  for (const IntField& field : int_fields()) {
    if (!field.moe) check_range(field, *this, file);
  }
  check_reals(*this, file);
  check_optionals(*this, file);
  if (qk_rope_head_dim % 2 != 0) {
    throw InputError(file, "qk_rope_head_dim",
                     std::to_string(qk_rope_head_dim) + ", expected an even number");
  }
  if (has_moe()) {
    for (const IntField& field : int_fields()) check_range(field, *this, file);
    check_routing(*this, file);
  }
  check_total(*this, file);
}

}  // namespace dsv3
