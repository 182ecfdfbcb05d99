#include "dsv3/config/param_table.h"

#include <algorithm>
#include <map>
#include <set>

#include "config/configs.h"

namespace dsv3::test {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

Shapes shapes(const ModelConfig& config) {
  Shapes all;
  for (const ParamSpec& spec : param_table(config).params) all[spec.name] = spec.shape;
  return all;
}

// What DeepseekV3ForCausalLM(config).state_dict() of transformers 5.17 holds for small_json() with one dense
// layer and one of experts.
TEST(ParamTable, NamesAndShapesAreThoseOfTransformers) {
  Json json = small_json("num_hidden_layers", 2);
  json["first_k_dense_replace"] = 1;
  json["attention_bias"] = true;
  Shapes expected = {
      {"model.embed_tokens.weight", {100, 32}}, {"model.norm.weight", {32}}, {"lm_head.weight", {100, 32}}};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    expected[layer + "self_attn.q_a_proj.weight"] = {24, 32};
    expected[layer + "self_attn.q_a_proj.bias"] = {24};
    expected[layer + "self_attn.q_a_layernorm.weight"] = {24};
    expected[layer + "self_attn.q_b_proj.weight"] = {48, 24};
    expected[layer + "self_attn.kv_a_proj_with_mqa.weight"] = {24, 32};
    expected[layer + "self_attn.kv_a_proj_with_mqa.bias"] = {24};
    expected[layer + "self_attn.kv_a_layernorm.weight"] = {16};
    expected[layer + "self_attn.kv_b_proj.weight"] = {56, 16};
    expected[layer + "self_attn.o_proj.weight"] = {32, 24};
    expected[layer + "self_attn.o_proj.bias"] = {32};
    expected[layer + "input_layernorm.weight"] = {32};
    expected[layer + "post_attention_layernorm.weight"] = {32};
  }
  expected["model.layers.0.mlp.gate_proj.weight"] = {48, 32};
  expected["model.layers.0.mlp.up_proj.weight"] = {48, 32};
  expected["model.layers.0.mlp.down_proj.weight"] = {32, 48};
  expected["model.layers.1.mlp.experts.gate_up_proj"] = {8, 32, 32};
  expected["model.layers.1.mlp.experts.down_proj"] = {8, 32, 16};
  expected["model.layers.1.mlp.gate.weight"] = {8, 32};
  expected["model.layers.1.mlp.gate.e_score_correction_bias"] = {8};
  expected["model.layers.1.mlp.shared_experts.gate_proj.weight"] = {16, 32};
  expected["model.layers.1.mlp.shared_experts.up_proj.weight"] = {16, 32};
  expected["model.layers.1.mlp.shared_experts.down_proj.weight"] = {32, 16};
  EXPECT_EQ(shapes(ModelConfig::from_json(json, "config.json")), expected);
}

TEST(ParamTable, WithoutQLoraOneProjection) {
  Json json = small_json("q_lora_rank", nullptr);
  json["attention_bias"] = true;
  const Shapes all = shapes(ModelConfig::from_json(json, "config.json"));
  EXPECT_EQ(all.at("model.layers.0.self_attn.q_proj.weight"), (std::vector<int64_t>{48, 32}));
  EXPECT_FALSE(all.contains("model.layers.0.self_attn.q_proj.bias"));
  EXPECT_FALSE(all.contains("model.layers.0.self_attn.q_a_proj.weight"));
}

TEST(ParamTable, TiedEmbeddingsHaveNoHead) {
  auto config = small_config("tie_word_embeddings", true);
  config.num_nextn_predict_layers = 1;
  EXPECT_EQ(param_table(config).find("lm_head.weight"), nullptr);
  EXPECT_EQ(mtp_shared_copies(config)[1].of, "model.embed_tokens.weight");
}

TEST(ParamTable, MtpModulesFollowTheHead) {
  const auto config = small_config("num_nextn_predict_layers", 2);
  const ParamTable table = param_table(config);
  EXPECT_EQ(table.num_units, 1 + 3 + 1 + 2);
  EXPECT_EQ(table.unit_name(0), "embedding");
  EXPECT_EQ(table.unit_name(3), "block 2");
  EXPECT_EQ(table.unit_name(table.head_unit()), "head");
  EXPECT_EQ(table.unit_name(6), "mtp 2");
  EXPECT_EQ(table.block_unit(2), 3);
  EXPECT_EQ(table.block_unit(4), 6);
  for (const char* layer : {"model.layers.3.", "model.layers.4."}) {
    const std::string at = layer;
    for (const char* name : {"enorm.weight", "hnorm.weight", "shared_head.norm.weight", "mlp.gate.weight"}) {
      EXPECT_NE(table.find(at + name), nullptr) << at + name;
    }
    EXPECT_EQ(table.find(at + "eh_proj.weight")->shape, (std::vector<int64_t>{32, 64}));
    EXPECT_EQ(table.find(at + "embed_tokens.weight"), nullptr);  // shared, see mtp_shared_copies
  }
  EXPECT_EQ(table.find("model.layers.4.enorm.weight")->unit, 6);
  const auto copies = mtp_shared_copies(config);
  ASSERT_EQ(copies.size(), 4u);
  EXPECT_EQ(copies[3].name, "model.layers.4.shared_head.head.weight");
  EXPECT_EQ(copies[3].of, "lm_head.weight");
}

TEST(ParamTable, UnitsAscend) {
  const ParamTable table = param_table(*ModelConfig::preset("tiny"));
  int unit = 0;
  for (const ParamSpec& spec : table.params) {
    EXPECT_TRUE(spec.unit == unit || spec.unit == unit + 1) << spec.name;
    unit = spec.unit;
  }
  EXPECT_EQ(unit + 1, table.num_units);
}

TEST(ParamTable, DecayInitAndGroupPerParameter) {
  Json json = small_json("num_nextn_predict_layers", 1);
  json["attention_bias"] = true;
  for (const ParamSpec& spec : param_table(ModelConfig::from_json(json, "config.json")).params) {
    const bool norm = spec.name.find("norm") != std::string::npos;
    const bool bias = spec.name.find("bias") != std::string::npos;
    EXPECT_EQ(spec.decay, !norm && !bias) << spec.name;
    EXPECT_EQ(spec.init, norm ? InitKind::ones : bias ? InitKind::zeros : InitKind::normal) << spec.name;
    EXPECT_EQ(spec.trainable, spec.role != Role::router_bias) << spec.name;
    EXPECT_EQ(spec.group == ParamGroup::expert, spec.name.find(".experts.") != std::string::npos)
        << spec.name;
  }
}

// Every element of a parameter lies in exactly one HF tensor.
TEST(ParamTable, HfTensorsTileEachParameter) {
  for (const ParamSpec& spec : param_table(*ModelConfig::preset("tiny")).params) {
    std::vector<std::pair<int64_t, int64_t>> ranges;
    std::set<std::string> names;
    for (const HfTensor& tensor : spec.hf) {
      int64_t numel = 1;
      for (int64_t size : tensor.shape) numel *= size;
      ranges.push_back({tensor.offset, tensor.offset + numel});
      EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name;
    }
    std::sort(ranges.begin(), ranges.end());
    int64_t end = 0;
    for (const auto& [from, to] : ranges) {
      EXPECT_EQ(from, end) << spec.name;
      end = to;
    }
    EXPECT_EQ(end, spec.numel()) << spec.name;
  }
}

TEST(ParamTable, ExpertsOnDisk) {
  const ParamTable table = param_table(ModelConfig::from_json(small_json(), "config.json"));
  const auto& gate_up = table.find("model.layers.2.mlp.experts.gate_up_proj")->hf;
  ASSERT_EQ(gate_up.size(), 16u);
  EXPECT_EQ(gate_up[3].name, "model.layers.2.mlp.experts.1.up_proj.weight");
  EXPECT_EQ(gate_up[3].offset, 3 * 16 * 32);  // expert 1: its gate rows, then these
  EXPECT_EQ(gate_up[3].shape, (std::vector<int64_t>{16, 32}));
  const auto& down = table.find("model.layers.2.mlp.experts.down_proj")->hf;
  EXPECT_EQ(down[7].name, "model.layers.2.mlp.experts.7.down_proj.weight");
  EXPECT_EQ(down[7].offset, 7 * 32 * 16);
  EXPECT_EQ(down[7].shape, (std::vector<int64_t>{32, 16}));
}

TEST(ParamTable, ReleasedModelsTensors) {
  const auto config = *ModelConfig::preset("671b");
  size_t tensors = mtp_shared_copies(config).size();
  int64_t bias = 0;
  const ParamTable table = param_table(config);
  for (const ParamSpec& spec : table.params) {
    tensors += spec.hf.size();
    if (spec.role == Role::router_bias && spec.unit < table.head_unit()) bias += spec.numel();
  }
  EXPECT_EQ(tensors, 46183u);  // the released index without its scales
  EXPECT_EQ(bias, 14848);
}

TEST(Presets, ParameterCounts) {
  const auto v3 = *ModelConfig::preset("671b");
  EXPECT_EQ(num_params(v3, false), 671026404352);
  EXPECT_EQ(num_active_params(v3), 37552282624);
  EXPECT_EQ(num_params(v3, true) - num_params(v3, false), 11610067968);
  const auto bench = *ModelConfig::preset("bench-108m");
  EXPECT_EQ(bench.num_nextn_predict_layers, 0);
  EXPECT_EQ(num_params(bench, true), 108129792);
  EXPECT_EQ(num_params(*ModelConfig::preset("moonlight"), false), 15960108544);
  EXPECT_LE(num_params(*ModelConfig::preset("tiny"), true), 15000000);
}

TEST(Presets, AreValidAndSurviveJson) {
  for (const std::string& name : ModelConfig::preset_names()) {
    const auto config = *ModelConfig::preset(name);
    config.validate(name);
    EXPECT_EQ(ModelConfig::from_json(config.to_json(), name).to_json(), config.to_json()) << name;
  }
  EXPECT_FALSE(ModelConfig::preset("large"));
}

TEST(Presets, TinyHasEveryMechanism) {
  const auto tiny = *ModelConfig::preset("tiny");
  EXPECT_GT(tiny.n_group, 1);
  EXPECT_EQ(tiny.num_nextn_predict_layers, 1);
  EXPECT_GE(tiny.vocab_size, 259);
  EXPECT_TRUE(tiny.q_lora_rank);
  EXPECT_TRUE(tiny.is_moe(1) && !tiny.is_moe(0));
}

}  // namespace
}  // namespace dsv3::test
