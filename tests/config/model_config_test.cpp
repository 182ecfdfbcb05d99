#include "config/configs.h"

namespace dsv3::test {
namespace {

TEST(ModelConfig, ReadsEveryField) {
  const auto config = ModelConfig::from_json(small_json(), "config.json");
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.moe_intermediate_size, 16);
  EXPECT_EQ(config.q_lora_rank, 24);
  EXPECT_EQ(config.topk_group, 1);
  EXPECT_EQ(config.routed_scaling_factor, 2.5);
  EXPECT_FALSE(config.yarn);
  EXPECT_FALSE(config.pad_token_id);
  EXPECT_EQ(config.source["seq_aux"], true);  // carried
}

TEST(ModelConfig, AbsentKeysTakeTheDefaultsOfTransformers) {
  const auto config = ModelConfig::from_json(parsed(R"({"model_type": "deepseek_v3"})"), "config.json");
  EXPECT_EQ(config.vocab_size, 129280);
  EXPECT_EQ(config.num_hidden_layers, 61);
  EXPECT_EQ(config.q_lora_rank, 1536);
  EXPECT_EQ(config.n_group, 8);
  EXPECT_EQ(config.max_position_embeddings, 4096);
  EXPECT_EQ(config.initializer_range, 0.02);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.bos_token_id, 0);
  EXPECT_EQ(config.eos_token_id, 1);
  EXPECT_FALSE(config.pad_token_id);
  // Not transformers' 1: a file that does not speak of MTP has none.
  EXPECT_EQ(config.num_nextn_predict_layers, 0);
}

TEST(ModelConfig, WritesWhatItRead) {
  Json json = small_json();
  json["pad_token_id"] = 7;
  json["rope_scaling"] = parsed(R"({"type": "yarn", "factor": 4, "mscale": 1, "mscale_all_dim": 0.5})");
  const auto once = ModelConfig::from_json(json, "a");
  const auto twice = ModelConfig::from_json(once.to_json(), "b");
  EXPECT_EQ(once.to_json(), twice.to_json());
  EXPECT_EQ(twice.pad_token_id, 7);
  EXPECT_EQ(once.yarn, twice.yarn);
  EXPECT_EQ(once.to_json()["torch_dtype"], "bfloat16");
}

TEST(ModelConfig, WritesChangedFieldsOverTheSource) {
  auto config = ModelConfig::from_json(small_json("head_dim", 8), "a");
  config.qk_rope_head_dim = 4;
  config.num_attention_heads = 4;
  const Json json = config.to_json();
  EXPECT_EQ(json["qk_rope_head_dim"], 4);
  EXPECT_EQ(json["num_key_value_heads"], 4);
  EXPECT_FALSE(json.contains("head_dim"));
  ModelConfig::from_json(json, "b");
}

TEST(ModelConfig, LoadsAFileOrItsFolder) {
  TempDir dir;
  write_file(dir / "config.json", small_json().dump());
  EXPECT_EQ(ModelConfig::load(dir.path()).vocab_size, 100);
  EXPECT_EQ(ModelConfig::load(dir / "config.json").vocab_size, 100);
  expect_error(ExitCode::usage, {"no such file"}, [&] { ModelConfig::load(dir / "other"); });
  std::filesystem::remove(dir / "config.json");
  expect_input_error({"config.json", "missing"}, [&] { ModelConfig::load(dir.path()); });
}

TEST(ModelConfig, ReadsTheNamesThatTransformersMaps) {
  Json json = small_json();
  json.erase("n_routed_experts");
  json.erase("num_nextn_predict_layers");
  json["num_local_experts"] = 4;
  json["num_mtp_layers"] = 2;
  const auto config = ModelConfig::from_json(json, "config.json");
  EXPECT_EQ(config.n_routed_experts, 4);
  EXPECT_EQ(config.num_nextn_predict_layers, 2);
  expect_refused("num_local_experts", 16, "n_routed_experts");
}

TEST(ModelConfig, LayersFollowFirstKAndFreq) {
  auto config = small_config("first_k_dense_replace", 1);
  config.num_hidden_layers = 6;
  config.moe_layer_freq = 2;
  const bool expected[] = {false, false, true, false, true, false, /* MTP */ true, true};
  for (int64_t layer = 0; layer < 8; ++layer) EXPECT_EQ(config.is_moe(layer), expected[layer]) << layer;
}

TEST(ModelConfig, DenseOnlyCarriesTheKeysOfExperts) {
  for (const Json& experts : {Json(nullptr), Json(-5), Json("none"), Json(7)}) {
    Json json = small_json("n_routed_experts", experts);
    json["first_k_dense_replace"] = 3;
    json["num_experts_per_tok"] = nullptr;
    json["n_group"] = 0;
    const auto config = ModelConfig::from_json(json, "config.json");
    EXPECT_FALSE(config.has_moe());
    EXPECT_EQ(config.to_json()["n_routed_experts"], experts);
    // An MTP block has experts, so their keys count again.
    json["num_nextn_predict_layers"] = 1;
    expect_input_error({"config.json"}, [&] { ModelConfig::from_json(json, "config.json"); });
  }
}

TEST(ModelConfig, ReadsMoonlightsShape) {
  Json json = small_json("q_lora_rank", nullptr);
  json["n_group"] = 1;
  json["rms_norm_eps"] = 1e-5;
  json["eos_token_id"] = parsed("[5, 6]");
  const auto config = ModelConfig::from_json(json, "config.json");
  EXPECT_FALSE(config.q_lora_rank);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.eos_token_id, 5);
  EXPECT_EQ(config.to_json()["eos_token_id"], parsed("[5, 6]"));
}

TEST(ModelConfig, ReadsKimi) { EXPECT_EQ(small_config("model_type", "kimi_k2").vocab_size, 100); }

TEST(ModelConfig, NullSharedExpertsAreNone) {
  EXPECT_EQ(small_config("n_shared_experts", nullptr).n_shared_experts, 0);
}

// Values that mean what the key's absence means.
TEST(ModelConfig, AcceptsHarmlessSpellings) {
  const std::pair<const char*, const char*> cases[] = {
      {"attention_dropout", "0.0"},    {"ep_size", "1"},
      {"pretraining_tp", "1"},         {"mlp_bias", "false"},
      {"rope_interleave", "true"},     {"head_dim", "8"},
      {"qk_head_dim", "24"},           {"sliding_window", "null"},
      {"quantization_config", "null"}, {"partial_rotary_factor", "1.0"},
      {"use_cache", "true"},           {"dtype", "\"float32\""},
      {"num_key_value_heads", "null"}, {"layer_types", "[\"full_attention\"]"},
      {"pad_token_id", "null"},        {"auto_map", "{}"}};
  for (const auto& [key, value] : cases) EXPECT_NO_THROW(small_config(key, parsed(value))) << key;
}

}  // namespace
}  // namespace dsv3::test
