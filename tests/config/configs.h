#pragma once
// Small valid configurations for the tests to break.

#include "dsv3/config/model_config.h"
#include "support/files.h"

namespace dsv3::test {

// Two dense blocks and one of experts, in the released spelling.
inline Json small_json() {
  return Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
    "num_hidden_layers": 3, "num_nextn_predict_layers": 0, "num_attention_heads": 2, "num_key_value_heads": 2,
    "n_shared_experts": 1, "n_routed_experts": 8, "routed_scaling_factor": 2.5, "kv_lora_rank": 16,
    "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_group": 2,
    "topk_group": 1, "num_experts_per_tok": 2, "moe_layer_freq": 1, "first_k_dense_replace": 2,
    "norm_topk_prob": true, "rms_norm_eps": 1e-6, "rope_theta": 10000, "rope_scaling": null,
    "max_position_embeddings": 4096, "hidden_act": "silu", "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "aux_loss_alpha": 0.001, "seq_aux": true, "torch_dtype": "bfloat16"})");
}
inline Json small_json(const std::string& key, const Json& value) {
  Json json = small_json();
  json[key] = value;
  return json;
}
inline Json parsed(const char* text) { return Json::parse(text); }
inline ModelConfig small_config(const std::string& key, const Json& value) {
  return ModelConfig::from_json(small_json(key, value), "config.json");
}

// from_json refuses small_json() with this value, naming file and key.
inline void expect_refused(const std::string& key, const Json& value, std::string_view part = "") {
  SCOPED_TRACE(key + " = " + value.dump());
  expect_input_error({"config.json: " + key, part}, [&] { small_config(key, value); });
}

}  // namespace dsv3::test
