// Models by name, every value written out. Sources: moonlight is moonshotai/Moonlight-16B-A3B's config.json,
// 671b is deepseek-ai/DeepSeek-V3's without its FP8 quantization.
#include "dsv3/config/model_config.h"

namespace dsv3 {
namespace {

// 10 million parameters that learn English bytes on two cores within minutes: every mechanism of the large
// model (low ranks, groups, a shared expert, MTP) at a size where a step takes a fraction of a second.
ModelConfig tiny() {
  ModelConfig config;
  config.vocab_size = 320;  // 259 of the byte tokenizer, rounded up to a multiple of 64
  config.hidden_size = 256;
  config.intermediate_size = 768;
  config.moe_intermediate_size = 128;
  config.num_hidden_layers = 4;
  config.num_nextn_predict_layers = 1;
  config.num_attention_heads = 8;
  config.n_shared_experts = 1;
  config.n_routed_experts = 16;
  config.routed_scaling_factor = 2.5;
  config.kv_lora_rank = 64;
  config.q_lora_rank = 96;
  config.qk_nope_head_dim = 32;
  config.qk_rope_head_dim = 16;
  config.v_head_dim = 32;
  config.n_group = 4;
  config.topk_group = 2;
  config.num_experts_per_tok = 4;
  config.moe_layer_freq = 1;
  config.first_k_dense_replace = 1;
  config.norm_topk_prob = true;
  config.initializer_range = 0.02;
  config.rms_norm_eps = 1e-6;
  config.rope_theta = 10000;
  config.max_position_embeddings = 4096;
  config.bos_token_id = 256;
  config.eos_token_id = 257;
  return config;
}

// The shape of docs/design.md's measurements: 108,129,792 parameters.
ModelConfig bench_108m() {
  ModelConfig config;
  config.vocab_size = 8192;
  config.hidden_size = 512;
  config.intermediate_size = 1536;
  config.moe_intermediate_size = 256;
  config.num_hidden_layers = 8;
  config.num_nextn_predict_layers = 0;
  config.num_attention_heads = 8;
  config.n_shared_experts = 1;
  config.n_routed_experts = 32;
  config.routed_scaling_factor = 2.5;
  config.kv_lora_rank = 128;
  config.q_lora_rank = 256;
  config.qk_nope_head_dim = 64;
  config.qk_rope_head_dim = 32;
  config.v_head_dim = 64;
  config.n_group = 8;
  config.topk_group = 4;
  config.num_experts_per_tok = 4;
  config.moe_layer_freq = 1;
  config.first_k_dense_replace = 1;
  config.norm_topk_prob = true;
  config.initializer_range = 0.02;
  config.rms_norm_eps = 1e-6;
  config.rope_theta = 10000;
  config.max_position_embeddings = 4096;
  return config;
}

ModelConfig moonlight() {
  ModelConfig config;
  config.vocab_size = 163840;
  config.hidden_size = 2048;
  config.intermediate_size = 11264;
  config.moe_intermediate_size = 1408;
  config.num_hidden_layers = 27;
  config.num_nextn_predict_layers = 0;
  config.num_attention_heads = 16;
  config.n_shared_experts = 2;
  config.n_routed_experts = 64;
  config.routed_scaling_factor = 2.446;
  config.kv_lora_rank = 512;
  config.q_lora_rank = std::nullopt;
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 128;
  config.n_group = 1;
  config.topk_group = 1;
  config.num_experts_per_tok = 6;
  config.moe_layer_freq = 1;
  config.first_k_dense_replace = 1;
  config.norm_topk_prob = true;
  config.initializer_range = 0.02;
  config.rms_norm_eps = 1e-5;
  config.rope_theta = 5e4;
  config.max_position_embeddings = 8192;
  config.bos_token_id = 163584;
  config.eos_token_id = 163585;
  return config;
}

ModelConfig v3_671b() {
  ModelConfig config;
  config.vocab_size = 129280;
  config.hidden_size = 7168;
  config.intermediate_size = 18432;
  config.moe_intermediate_size = 2048;
  config.num_hidden_layers = 61;
  config.num_nextn_predict_layers = 1;
  config.num_attention_heads = 128;
  config.n_shared_experts = 1;
  config.n_routed_experts = 256;
  config.routed_scaling_factor = 2.5;
  config.kv_lora_rank = 512;
  config.q_lora_rank = 1536;
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 128;
  config.n_group = 8;
  config.topk_group = 4;
  config.num_experts_per_tok = 8;
  config.moe_layer_freq = 1;
  config.first_k_dense_replace = 3;
  config.norm_topk_prob = true;
  config.initializer_range = 0.02;
  config.rms_norm_eps = 1e-6;
  config.rope_theta = 10000;
  config.yarn = YarnConfig{.factor = 40,
                           .beta_fast = 32,
                           .beta_slow = 1,
                           .mscale = 1,
                           .mscale_all_dim = 1,
                           .attention_factor = std::nullopt,
                           .original_max_position_embeddings = 4096,
                           .truncate = true};
  config.max_position_embeddings = 163840;
  config.bos_token_id = 0;
  config.eos_token_id = 1;
  return config;
}

struct Preset {
  const char* name;
  ModelConfig (*make)();
};
constexpr Preset kPresets[] = {
    {"tiny", tiny}, {"bench-108m", bench_108m}, {"moonlight", moonlight}, {"671b", v3_671b}};

}  // namespace

std::optional<ModelConfig> ModelConfig::preset(std::string_view name) {
  for (const Preset& preset : kPresets) {
    if (name == preset.name) return preset.make();
  }
  return std::nullopt;
}

std::vector<std::string> ModelConfig::preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.push_back(preset.name);
  return names;
}

}  // namespace dsv3
