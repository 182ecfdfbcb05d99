// Every key of config.json that changes the mathematics is implemented or refused by name: one test a key.
#include "config/configs.h"

namespace dsv3::test {
namespace {

TEST(ConfigKey, ModelType) {
  expect_refused("model_type", "deepseek_v2");
  expect_refused("model_type", "deepseek_v32");
}
TEST(ConfigKey, ModelTypeMissing) {
  expect_input_error({"config.json: model_type", "missing"},
                     [] { ModelConfig::from_json(Json::object(), "config.json"); });
}
TEST(ConfigKey, Architectures) {
  expect_refused("architectures", parsed(R"(["DeepseekV3ForSequenceClassification"])"));
  expect_refused("architectures", "DeepseekV3ForCausalLM");
}
TEST(ConfigKey, HiddenAct) { expect_refused("hidden_act", "gelu", "expected \"silu\""); }
TEST(ConfigKey, ScoringFunc) { expect_refused("scoring_func", "softmax"); }
TEST(ConfigKey, TopkMethod) { expect_refused("topk_method", "group_limited_greedy"); }
TEST(ConfigKey, AttentionDropout) {
  expect_refused("attention_dropout", 0.1);
  expect_refused("attention_dropout", nullptr);
}
TEST(ConfigKey, EpSize) { expect_refused("ep_size", 8); }
TEST(ConfigKey, PretrainingTp) { expect_refused("pretraining_tp", 2); }
TEST(ConfigKey, MlpBias) { expect_refused("mlp_bias", true); }
TEST(ConfigKey, NumKeyValueHeads) { expect_refused("num_key_value_heads", 1, "expected 2"); }
TEST(ConfigKey, HeadDim) { expect_refused("head_dim", 24, "expected 8"); }
TEST(ConfigKey, QkHeadDim) { expect_refused("qk_head_dim", 8, "expected 24"); }
TEST(ConfigKey, SlidingWindow) { expect_refused("sliding_window", 4096); }
TEST(ConfigKey, UseSlidingWindow) { expect_refused("use_sliding_window", true); }
TEST(ConfigKey, LayerTypes) {
  expect_refused("layer_types", parsed(R"(["full_attention", "sliding_attention"])"));
}
TEST(ConfigKey, RopeInterleave) {
  expect_refused("rope_interleave", false);
  expect_refused("rope_interleave", nullptr);  // false, as transformers reads it
}
TEST(ConfigKey, PartialRotaryFactor) { expect_refused("partial_rotary_factor", 0.5); }
TEST(ConfigKey, MtpHiddenStatesFirst) { expect_refused("mtp_hidden_states_first", true); }
TEST(ConfigKey, PerLayerConfig) {
  expect_refused("per_layer_config", parsed(R"({"1": {"hidden_size": 8}})"));
}
TEST(ConfigKey, IsEncoderDecoder) { expect_refused("is_encoder_decoder", true); }
TEST(ConfigKey, AddCrossAttention) { expect_refused("add_cross_attention", true); }
TEST(ConfigKey, QuantizationConfig) {
  // As released; it describes files, so what is written from it does not repeat it.
  const Json released = parsed(R"({"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                   "weight_block_size": [128, 128]})");
  EXPECT_FALSE(small_config("quantization_config", released).to_json().contains("quantization_config"));
  const auto refused = [&](const char* key, const Json& value, std::string_view part) {
    Json changed = released;
    changed[key] = value;
    expect_refused("quantization_config", changed, part);
  };
  refused("quant_method", "awq", ".quant_method: \"awq\", expected \"fp8\"");
  refused("fmt", "e5m2", ".fmt: \"e5m2\", expected \"e4m3\"");
  refused("weight_block_size", parsed("[64, 128]"), ".weight_block_size: [64,128], expected [128,128]");
  refused("weight_block_size", nullptr, ".weight_block_size: null, expected [128,128]");  // a scale a tensor
  expect_refused("quantization_config", parsed(R"({"quant_method": "fp8"})"), ".weight_block_size: missing");
  expect_refused("quantization_config", parsed("{}"), ".quant_method: missing");
  expect_refused("quantization_config", 8);
}
TEST(ConfigKey, NormTopkProb) { expect_refused("norm_topk_prob", nullptr); }
TEST(ConfigKey, PadTokenIdOutsideTheVocabulary) {
  expect_refused("pad_token_id", 100, "vocab_size = 100");
  expect_refused("pad_token_id", -1);
  EXPECT_EQ(small_config("pad_token_id", 99).pad_token_id, 99);
}

// semantics.md, "top-k limits".
TEST(TopkLimits, TopkAboveTheExpertsOfTheKeptGroups) {
  EXPECT_NO_THROW(small_config("num_experts_per_tok", 4));
  expect_refused("num_experts_per_tok", 5, "4 experts");
}
TEST(TopkLimits, KeptGroupsAboveGroups) { expect_refused("topk_group", 3, "n_group = 2"); }
TEST(TopkLimits, GroupsOfOneExpert) { expect_refused("n_group", 8, "8 groups of 1 expert"); }
TEST(TopkLimits, OneGroupOfOneExpert) {
  Json json = small_json("n_routed_experts", 1);
  json["n_group"] = json["topk_group"] = json["num_experts_per_tok"] = 1;
  EXPECT_NO_THROW(ModelConfig::from_json(json, "config.json"));
}

// Rows of hostile-inputs.md.
TEST(HostileConfig, Row38NoExpertsOrNotDivisibleByGroups) {
  expect_refused("n_routed_experts", 0);
  expect_refused("n_routed_experts", 9, "not divisible by n_group = 2");
}
TEST(HostileConfig, Row39TopkAboveExperts) { expect_refused("num_experts_per_tok", 9); }
TEST(HostileConfig, Row40HiddenSizeBeyondReason) { expect_refused("hidden_size", int64_t{1} << 31); }
TEST(HostileConfig, Row41BillionLayers) { expect_refused("num_hidden_layers", 1000000000); }
TEST(HostileConfig, Row42ThetaAndEps) {
  expect_refused("rope_theta", -1);
  expect_refused("rope_theta", 0);
  expect_refused("rms_norm_eps", 0);
  expect_refused("rms_norm_eps", -1e-6);
  TempDir dir;
  std::string text = small_json().dump();
  text.replace(text.find("\"rope_theta\":10000"), 18, "\"rope_theta\":1e999");
  write_file(dir / "config.json", text);
  expect_input_error({"config.json", "1e999"}, [&] { ModelConfig::load(dir.path()); });
}
TEST(HostileConfig, Row43StringForInteger) {
  expect_refused("num_hidden_layers", "3", "expected an integer");
}
TEST(HostileConfig, Row43DuplicateKey) {
  TempDir dir;
  write_file(dir / "config.json", R"({"model_type": "deepseek_v3", "vocab_size": 10, "vocab_size": 20})");
  expect_input_error({"config.json", "vocab_size", "duplicate"}, [&] { ModelConfig::load(dir.path()); });
}
TEST(HostileConfig, Row44QuantizationBlockZero) {
  expect_refused("quantization_config", parsed(R"({"quant_method": "fp8", "weight_block_size": [0, 128]})"),
                 "weight_block_size: [0,128]");
}

TEST(HostileConfig, WrongTypes) {
  expect_refused("hidden_size", 32.0);
  expect_refused("hidden_size", nullptr);
  expect_refused("hidden_size", true);
  expect_refused("hidden_size", parsed("18446744073709551615"));
  expect_refused("first_k_dense_replace", nullptr);
  expect_refused("routed_scaling_factor", "2.5");
  expect_refused("attention_bias", 1);
  expect_refused("tie_word_embeddings", "yes");
  expect_refused("q_lora_rank", 0);
  expect_refused("q_lora_rank", parsed("[24]"));
  expect_refused("eos_token_id", "</s>");
  expect_input_error({"config.json", "object"}, [] { ModelConfig::from_json(Json::array(), "config.json"); });
}
TEST(HostileConfig, NegativeSizes) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers",
        "num_nextn_predict_layers", "num_attention_heads", "n_shared_experts", "n_routed_experts",
        "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_group", "topk_group",
        "num_experts_per_tok", "moe_layer_freq", "first_k_dense_replace", "max_position_embeddings"}) {
    expect_refused(key, -1);
  }
}
TEST(HostileConfig, OddRopeDimension) { expect_refused("qk_rope_head_dim", 7, "even"); }
TEST(HostileConfig, AbsurdProducts) {
  Json json = small_json("num_hidden_layers", 4096);
  json["n_routed_experts"] = 65536;
  expect_input_error({"config.json: n_routed_experts", "experts over all layers"},
                     [&] { ModelConfig::from_json(json, "config.json"); });
  Json wide = small_json("hidden_size", 1 << 20);
  wide["intermediate_size"] = 1 << 20;
  wide["num_hidden_layers"] = 4096;
  wide["first_k_dense_replace"] = 4096;
  expect_input_error({"config.json", "parameters in all"},
                     [&] { ModelConfig::from_json(wide, "config.json"); });
}
TEST(HostileConfig, MessagesArePrintable) {
  expect_refused("hidden_act", "a\x1b[31m\n" + std::string(5000, 'x'));
}

}  // namespace
}  // namespace dsv3::test
