// RoPE keys, old and new, with the precedence of transformers 5.17.
#include "config/configs.h"

namespace dsv3::test {
namespace {

constexpr const char* kReleased =
    R"({"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn"})";

TEST(Rope, ReleasedV3) {
  const auto config = small_config("rope_scaling", parsed(kReleased));
  EXPECT_EQ(config.yarn, (YarnConfig{.mscale = 1, .mscale_all_dim = 1, .attention_factor = {}}));
}

TEST(Rope, NewKeyHoldsTypeAndTheta) {
  Json json = small_json();
  json.erase("rope_scaling");
  json.erase("rope_theta");
  json["rope_parameters"] = parsed(R"({"rope_type": "default", "rope_theta": 50000.0})");
  auto config = ModelConfig::from_json(json, "config.json");
  EXPECT_EQ(config.rope_theta, 50000);
  EXPECT_FALSE(config.yarn);
  json["rope_parameters"] =
      parsed(R"({"rope_type": "yarn", "rope_theta": 50000.0, "factor": 2.0, "truncate": false,
                                       "original_max_position_embeddings": 64, "attention_factor": 1.5})");
  config = ModelConfig::from_json(json, "config.json");
  ASSERT_TRUE(config.yarn);
  EXPECT_EQ(config.yarn->factor, 2);
  EXPECT_EQ(config.yarn->attention_factor, 1.5);
  EXPECT_EQ(config.yarn->original_max_position_embeddings, 64);
  EXPECT_FALSE(config.yarn->truncate);
  EXPECT_FALSE(config.yarn->mscale);
}

TEST(Rope, ThetaInsideWinsOverOutside) {
  EXPECT_EQ(small_config("rope_parameters", parsed(R"({"rope_theta": 7.0})")).rope_theta, 7);
}
TEST(Rope, ScalingWinsOverParameters) {
  Json json = small_json("rope_scaling", parsed(R"({"type": "yarn", "factor": 8})"));
  json["rope_parameters"] = parsed(R"({"rope_type": "yarn", "factor": 2})");
  EXPECT_EQ(ModelConfig::from_json(json, "config.json").yarn->factor, 8);
}
TEST(Rope, AbsentYarnKeys) {
  const auto yarn =
      *small_config("rope_scaling", parsed(R"({"type": "yarn", "factor": 8, "beta_fast": null})")).yarn;
  EXPECT_EQ(yarn.beta_fast, 32);
  EXPECT_EQ(yarn.beta_slow, 1);
  EXPECT_FALSE(yarn.mscale);
  EXPECT_FALSE(yarn.mscale_all_dim);
  EXPECT_FALSE(yarn.attention_factor);
  EXPECT_EQ(yarn.original_max_position_embeddings, 4096);  // max_position_embeddings
  EXPECT_TRUE(yarn.truncate);
}
TEST(Rope, OriginalLengthOutsideWins) {
  Json json = small_json("rope_scaling", parsed(kReleased));
  json["original_max_position_embeddings"] = 512;
  EXPECT_EQ(ModelConfig::from_json(json, "config.json").yarn->original_max_position_embeddings, 512);
}
TEST(Rope, KimisEqualBetas) {
  Json scaling = parsed(kReleased);
  scaling["beta_fast"] = 1.0;
  EXPECT_EQ(small_config("rope_scaling", scaling).yarn->beta_fast, 1);
}

void expect_rope_refused(const std::string& key, const Json& value, std::string_view part = "") {
  Json scaling = parsed(kReleased);
  scaling[key] = value;
  expect_input_error({"config.json: rope_scaling." + key, part},
                     [&] { small_config("rope_scaling", scaling); });
}

TEST(RopeKey, Type) {
  expect_rope_refused("type", "linear", "yarn");
  expect_rope_refused("type", 3);
  expect_rope_refused("rope_type", "longrope");
  expect_rope_refused("rope_type", "dynamic");
}
TEST(RopeKey, Factor) {
  expect_rope_refused("factor", 0.5);
  expect_rope_refused("factor", "40");
  expect_rope_refused("factor", nullptr, "missing");
}
TEST(RopeKey, FactorWithoutYarn) {
  expect_input_error({"rope_scaling.factor", "no effect"},
                     [] { small_config("rope_scaling", parsed(R"({"factor": 4})")); });
}
TEST(RopeKey, Betas) {
  expect_rope_refused("beta_fast", 0.5, "beta_slow");
  expect_rope_refused("beta_fast", -1);
}
TEST(RopeKey, Mscales) {
  expect_rope_refused("mscale", -1);
  expect_rope_refused("mscale_all_dim", "1");
}
TEST(RopeKey, AttentionFactor) { expect_rope_refused("attention_factor", 0); }
TEST(RopeKey, OriginalLength) {
  expect_rope_refused("original_max_position_embeddings", 0);
  expect_rope_refused("original_max_position_embeddings", 4096.5);
}
TEST(RopeKey, Truncate) { expect_rope_refused("truncate", nullptr); }
TEST(RopeKey, PartialRotaryFactor) { expect_rope_refused("partial_rotary_factor", 0.5); }
TEST(RopeKey, Theta) { expect_rope_refused("rope_theta", 1); }
TEST(RopeKey, Unknown) { expect_rope_refused("llama_4_scaling_beta", 0.1, "unknown key"); }
TEST(RopeKey, NoObject) { expect_refused("rope_scaling", "yarn"); }

}  // namespace
}  // namespace dsv3::test
