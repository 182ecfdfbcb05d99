#include "dsv3/config/model_fields.h"

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

// The upper limits are far above any model and low enough that no product of four of them leaves int64
// unnoticed: validate() bounds the products.
constexpr int64_t kDim = 1 << 20;
using M = ModelConfig;

constexpr IntField kInts[] = {
    {"vocab_size", &M::vocab_size, 1, 1 << 24},
    {"hidden_size", &M::hidden_size, 1, kDim},
    {"intermediate_size", &M::intermediate_size, 1, kDim},
    {"moe_intermediate_size", &M::moe_intermediate_size, 1, kDim, true},
    {"num_hidden_layers", &M::num_hidden_layers, 1, 4096},
    {"num_nextn_predict_layers", &M::num_nextn_predict_layers, 0, 64},
    {"num_attention_heads", &M::num_attention_heads, 1, 1 << 16},
    {"n_shared_experts", &M::n_shared_experts, 0, 1 << 10, true},
    {"n_routed_experts", &M::n_routed_experts, 1, 1 << 16, true},
    {"kv_lora_rank", &M::kv_lora_rank, 1, kDim},
    {"qk_nope_head_dim", &M::qk_nope_head_dim, 1, 1 << 14},
    {"qk_rope_head_dim", &M::qk_rope_head_dim, 2, 1 << 14},
    {"v_head_dim", &M::v_head_dim, 1, 1 << 14},
    {"n_group", &M::n_group, 1, 1 << 16, true},
    {"topk_group", &M::topk_group, 1, 1 << 16, true},
    {"num_experts_per_tok", &M::num_experts_per_tok, 1, 1 << 16, true},
    {"moe_layer_freq", &M::moe_layer_freq, 1, 1 << 16},
    {"first_k_dense_replace", &M::first_k_dense_replace, 0, int64_t{1} << 31},
    {"max_position_embeddings", &M::max_position_embeddings, 1, int64_t{1} << 31},
};
constexpr RealField kReals[] = {
    {"routed_scaling_factor", &M::routed_scaling_factor, 0, true},
    {"initializer_range", &M::initializer_range, 0},
    {"rms_norm_eps", &M::rms_norm_eps, 0},
};
constexpr BoolField kBools[] = {
    {"norm_topk_prob", &M::norm_topk_prob},
    {"attention_bias", &M::attention_bias},
    {"tie_word_embeddings", &M::tie_word_embeddings},
};
constexpr OptionalField kOptionals[] = {
    {"q_lora_rank", &M::q_lora_rank},
    {"bos_token_id", &M::bos_token_id},
    {"eos_token_id", &M::eos_token_id},
    {"pad_token_id", &M::pad_token_id},
};

struct FixedKey {
  const char* key;
  std::vector<Json> accepted;  // the first is the one to name
};

const std::vector<FixedKey>& fixed_keys() {
  static const std::vector<FixedKey> keys = {
      {"model_type", {"deepseek_v3", "kimi_k2"}},
      {"hidden_act", {"silu"}},
      {"scoring_func", {"sigmoid"}},
      {"topk_method", {"noaux_tc"}},
      {"attention_dropout", {0}},
      {"ep_size", {1, nullptr}},
      {"pretraining_tp", {1, nullptr}},
      {"mlp_bias", {false, nullptr}},
      {"rope_interleave", {true}},
      {"partial_rotary_factor", {1, nullptr}},
      {"sliding_window", {nullptr}},
      {"use_sliding_window", {false, nullptr}},
      {"mtp_hidden_states_first", {false, nullptr}},
      {"per_layer_config", {nullptr}},
      {"is_encoder_decoder", {false, nullptr}},
      {"add_cross_attention", {false, nullptr}},
  };
  return keys;
}

void check_architectures(const Json& json, std::string_view file) {
  const auto found = json.find("architectures");
  if (found == json.end() || found->is_null()) {
    if (json.contains("model_type")) return;
    throw InputError(file, "model_type", "is missing", "a DeepSeek-V3 config.json has \"deepseek_v3\"");
  }
  if (*found != Json::array({"DeepseekV3ForCausalLM"})) {
    throw InputError(file, "architectures", shown(*found) + ", expected [\"DeepseekV3ForCausalLM\"]");
  }
}

void check_layer_types(const Json& json, std::string_view file) {
  const auto found = json.find("layer_types");
  if (found == json.end() || found->is_null()) return;
  bool full = found->is_array();
  if (full) {
    for (const Json& type : *found) full = full && type == "full_attention";
  }
  if (!full)
    throw InputError(file, "layer_types", shown(*found) + ", expected \"full_attention\" everywhere");
}

// How the weights beside config.json are stored; only DeepSeek's own way is read. The other keys say how a
// program may compute with them, or name tensors, whose dtype is seen in their file.
void check_quantization(const Json& json, std::string_view file) {
  const auto found = json.find("quantization_config");
  if (found == json.end() || found->is_null()) return;
  if (!found->is_object())
    throw InputError(file, "quantization_config", shown(*found) + ", expected an object");
  const auto expect = [&](const char* key, const Json& value, bool required) {
    const auto it = found->find(key);
    if (it == found->end() ? !required : *it == value) return;
    throw InputError(file, std::string("quantization_config.") + key,
                     (it == found->end() ? "missing" : shown(*it)) + ", expected " + shown(value),
                     "or use a bf16 copy of the checkpoint");
  };
  expect("quant_method", "fp8", true);
  expect("fmt", "e4m3", false);
  expect("weight_block_size", {128, 128}, true);
}

}  // namespace

std::span<const IntField> int_fields() { return kInts; }
std::span<const RealField> real_fields() { return kReals; }
std::span<const BoolField> bool_fields() { return kBools; }
std::span<const OptionalField> optional_fields() { return kOptionals; }

const std::vector<std::string>& known_model_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> all;
    for (const auto& field : kInts) all.push_back(field.key);
    for (const auto& field : kReals) all.push_back(field.key);
    for (const auto& field : kBools) all.push_back(field.key);
    for (const auto& field : kOptionals) all.push_back(field.key);
    for (const auto& fixed : fixed_keys()) all.push_back(fixed.key);
    for (const char* key : {"rope_theta", "rope_scaling", "rope_parameters", "architectures", "layer_types",
                            "num_key_value_heads", "head_dim", "quantization_config"}) {
      all.push_back(key);
    }
    return all;
  }();
  return keys;
}

std::string shown(const Json& value) {
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

void check_fixed_keys(const Json& json, std::string_view file) {
  check_architectures(json, file);
  for (const FixedKey& fixed : fixed_keys()) {
    const auto found = json.find(fixed.key);
    if (found == json.end()) continue;
    bool fits = false;
    for (const Json& value : fixed.accepted) fits = fits || *found == value;
    if (!fits) {
      throw InputError(file, fixed.key,
                       shown(*found) + " is not implemented, expected " + shown(fixed.accepted[0]));
    }
  }
  check_layer_types(json, file);
  check_quantization(json, file);
}

}  // namespace dsv3
