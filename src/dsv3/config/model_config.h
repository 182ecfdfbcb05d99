#pragma once
// The model's shape and mathematics: a mirror of a Hugging Face deepseek_v3 config.json, field names and all.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/json.h"

namespace dsv3 {

// YaRN (arXiv 2309.00071) as transformers 5.17 computes it. Old key rope_scaling, new key rope_parameters.
//   cos and sin are scaled by attention_factor; else by m(mscale) / m(mscale_all_dim) when both are given and
//   not 0; else by m(1), where m(s) = 0.1 s ln(factor) + 1. The softmax scale is multiplied by
//   m(mscale_all_dim)^2 when that is given and not 0.
struct YarnConfig {
  double factor = 40;
  double beta_fast = 32, beta_slow = 1;
  std::optional<double> mscale, mscale_all_dim;
  std::optional<double> attention_factor;
  int64_t original_max_position_embeddings = 4096;
  bool truncate = true;  // ramp indices rounded outward to integers
  bool operator==(const YarnConfig&) const = default;
};

struct ModelConfig {
  int64_t vocab_size = 129280;
  int64_t hidden_size = 7168;
  int64_t intermediate_size = 18432;     // dense FFN
  int64_t moe_intermediate_size = 2048;  // one expert
  int64_t num_hidden_layers = 61;
  int64_t num_nextn_predict_layers = 0;  // D, the depth of multi-token prediction
  int64_t num_attention_heads = 128;
  int64_t n_shared_experts = 1;  // 0: none
  int64_t n_routed_experts = 256;
  double routed_scaling_factor = 2.5;
  int64_t kv_lora_rank = 512;
  std::optional<int64_t> q_lora_rank = 1536;  // absent: one q_proj
  int64_t qk_nope_head_dim = 128, qk_rope_head_dim = 64, v_head_dim = 128;
  int64_t n_group = 8, topk_group = 4, num_experts_per_tok = 8;
  int64_t moe_layer_freq = 1, first_k_dense_replace = 3;  // see is_moe()
  bool norm_topk_prob = true;
  bool attention_bias = false;  // on q_a_proj (not q_proj), kv_a_proj_with_mqa and o_proj
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  double rms_norm_eps = 1e-6;  // q_a_layernorm and kv_a_layernorm use 1e-6 whatever this says
  double rope_theta = 10000;
  std::optional<YarnConfig> yarn;
  int64_t max_position_embeddings = 4096;
  std::optional<int64_t> bos_token_id = 0, eos_token_id = 1;  // eos: the first of a list
  std::optional<int64_t> pad_token_id;  // present: this embedding row gets no gradient from the look-up
  Json source = Json::object();  // the config.json it came from, for keys that are carried and not read

  // Checks every limit (semantics.md: top-k limits; hostile rows 38 to 43). InputError{file, key, why}.
  static ModelConfig from_json(const Json& json, std::string_view file);
  // path: a config.json or a folder that holds one.
  static ModelConfig load(const std::filesystem::path& path);
  // "tiny" | "bench-108m" | "moonlight" | "671b"; nothing for another name.
  static std::optional<ModelConfig> preset(std::string_view name);
  static std::vector<std::string> preset_names();

  // A config.json that transformers loads: `source` with every field of this struct written over it, RoPE as
  // the old keys rope_theta and rope_scaling (which every release reads).
  Json to_json() const;
  void validate(std::string_view file) const;

  // layer counts blocks from 0; layers >= num_hidden_layers are MTP blocks, which are always MoE.
  bool is_moe(int64_t layer) const {
    if (layer >= num_hidden_layers) return true;
    return layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  // Whether any block has experts; without one the keys of experts in config.json are carried and not read.
  bool has_moe() const;
  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
};

}  // namespace dsv3
