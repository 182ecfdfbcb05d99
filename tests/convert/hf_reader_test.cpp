#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "convert/hf_case.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/hf_writer.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {
namespace {

using test::small_config;
using test::StoredTensors;

class HfReaderTest : public testing::Test {
 protected:
  // A folder of this model whose tensors went through `change`.
  std::filesystem::path folder(const ModelConfig& config, const std::function<void(StoredTensors&)>& change) {
    const auto path = dir_ / ("model-" + std::to_string(count_++));
    write_hf_folder(path, config, test::small_source, {.dtype = DType::f32});
    StoredTensors tensors = test::load_tensors(path / "model.safetensors");
    change(tensors);
    test::save_tensors(path / "model.safetensors", tensors);
    return path;
  }
  void refuse(const ModelConfig& config, const std::function<void(StoredTensors&)>& change,
              std::initializer_list<std::string_view> parts) {
    const auto path = folder(config, change);
    test::expect_input_error({"/model.safetensors: "}, [&] { ModelWeights reader(path, config); });
    test::expect_input_error(parts, [&] { ModelWeights reader(path, config); });
  }
  static void erase_layer(StoredTensors& tensors, const std::string& layer) {
    std::erase_if(tensors,
                  [&](const auto& item) { return item.first.starts_with("model.layers." + layer + "."); });
  }
  test::TempDir dir_;
  int count_ = 0;
};

TEST_F(HfReaderTest, ReadsAnyRangeOfEveryParameter) {
  const ModelConfig config = small_config();
  const ModelWeights reader(folder(config, [](StoredTensors&) {}), config);
  EXPECT_TRUE(reader.missing_mtp().empty());
  for (const ParamSpec& spec : param_table(config).params) {
    const int64_t numel = spec.numel();
    std::vector<float> expected(static_cast<size_t>(numel));
    test::small_source(spec, 0, expected);
    for (int64_t begin : {int64_t{0}, int64_t{1}, numel / 3, numel / 2 + 1, numel}) {
      for (int64_t end : {begin, (begin + numel) / 2, numel}) {
        std::vector<float> got(static_cast<size_t>(end - begin));
        reader.read(spec, begin, std::span(got));
        EXPECT_EQ(got, std::vector<float>(expected.begin() + begin, expected.begin() + end)) << spec.name;
        std::vector<double> wide(got.size());
        reader.read(spec, begin, std::span(wide));
        EXPECT_EQ(wide, std::vector<double>(got.begin(), got.end())) << spec.name;
      }
    }
    std::vector<float> one(1);
    EXPECT_THROW(reader.read(spec, numel, std::span(one)), std::logic_error);
    EXPECT_THROW(reader.read(spec, -1, std::span(one)), std::logic_error);
  }
}

// Larger than a piece, so that the pieces meet.
TEST_F(HfReaderTest, PiecesMeet) {
  ModelConfig config = small_config({.mtp = 0});
  config.vocab_size = 100'003;
  const auto path = dir_ / "large";
  write_hf_folder(path, config, test::small_source, {.dtype = DType::bf16});
  const ModelWeights reader(path, config);
  const ParamTable table = param_table(config);
  const ParamSpec& embedding = *table.find("model.embed_tokens.weight");
  std::vector<float> expected(static_cast<size_t>(embedding.numel())), got(expected.size() - 5);
  test::small_source(embedding, 0, expected);
  std::vector<std::byte> rounded(2 * expected.size());
  encode(expected, DType::bf16, rounded);
  decode(DType::bf16, rounded, expected);
  reader.read(embedding, 5, std::span(got));
  EXPECT_EQ(got, std::vector<float>(expected.begin() + 5, expected.end()));
}

TEST_F(HfReaderTest, MissingUnexpectedAndWrongTensorsAreListed) {
  const ModelConfig config = small_config();
  refuse(config, [](auto& t) { t.erase("model.norm.weight"); },
         {"model.safetensors: model.norm.weight: is missing (the weights must fit config.json)"});
  refuse(config, [](auto& t) { t.erase("lm_head.weight"); }, {"lm_head.weight: is missing"});
  refuse(config, [](auto& t) { t.erase("model.layers.1.mlp.gate.e_score_correction_bias"); },
         {"model.layers.1.mlp.gate.e_score_correction_bias: is missing"});
  refuse(config, [](auto& t) { t.erase("model.layers.1.mlp.experts.3.up_proj.weight"); },
         {"model.layers.1.mlp.experts.3.up_proj.weight: is missing"});
  refuse(config, [](auto& t) { t["model.extra"] = t["model.norm.weight"]; }, {"model.extra: is unexpected"});
  refuse(config,
         [](auto& t) {
           t["model.norm.weight"].shape = {2, 4};
         },
         {"model.norm.weight: has shape [2, 4], expected [8]"});
  refuse(config,
         [](auto& t) {
           t["model.norm.weight"] = {DType::f8_e4m3, {8}, std::vector<std::byte>(8)};
         },
         {"model.norm.weight: has dtype F8_E4M3, expected F64, F32, F16, BF16, or F8_E4M3 in a matrix"});
  refuse(config, [](auto& t) { t["model.norm.weight_scale_inv"] = t["model.norm.weight"]; },
         {"model.norm.weight_scale_inv: is unexpected"});
  refuse(config, [](auto& t) { t.erase("model.norm.weight"), t["a"] = t["lm_head.weight"]; },
         {"model.norm.weight: is missing; a is unexpected"});
  // Experts in one tensor, as the module has them in memory, are not how models are published.
  refuse(config, [](auto& t) { t["model.layers.1.mlp.experts.down_proj"] = t["model.norm.weight"]; },
         {"experts.down_proj: is unexpected"});
}

TEST_F(HfReaderTest, LongListsEndInACount) {
  const ModelConfig config = small_config();
  refuse(config,
         [](auto& t) {
           for (int i = 0; i < 25; ++i) t["extra." + std::to_string(100 + i)] = t["model.norm.weight"];
         },
         {"extra.100: is unexpected; extra.101", "extra.119 is unexpected; and 5 more"});
}

TEST_F(HfReaderTest, RotaryTablesAreIgnored) {
  const ModelConfig config = small_config();
  EXPECT_NO_THROW(ModelWeights(
      folder(
          config,
          [](auto& t) {
            t["model.layers.0.self_attn.rotary_emb.inv_freq"] = {DType::f32, {1}, std::vector<std::byte>(4)};
          }),
      config));
}

TEST_F(HfReaderTest, AbsentMtpModuleIsReported) {
  const ModelConfig config = small_config();
  const ModelWeights reader(folder(config, [](auto& t) { erase_layer(t, "2"); }), config);
  EXPECT_EQ(reader.missing_mtp(), std::vector<int64_t>{1});
  std::vector<float> out(1);
  test::expect_input_error({"model.layers.2.enorm.weight: is missing"}, [&] {
    reader.read(*param_table(config).find("model.layers.2.enorm.weight"), 0, std::span(out));
  });
  // Its copies of shared tensors are none of its own.
  const ModelWeights copies(folder(config,
                                   [](auto& t) {
                                     erase_layer(t, "2");
                                     t["model.layers.2.embed_tokens.weight"] = t["model.embed_tokens.weight"];
                                   }),
                            config);
  EXPECT_EQ(copies.missing_mtp(), std::vector<int64_t>{1});
}

TEST_F(HfReaderTest, PartOfAnMtpModuleIsRefused) {
  refuse(small_config(), [](auto& t) { t.erase("model.layers.2.eh_proj.weight"); },
         {"model.layers.2.eh_proj.weight: is missing"});
  const ModelConfig two = small_config({.mtp = 2});
  refuse(two, [](auto& t) { erase_layer(t, "2"); }, {"model.layers.2.enorm.weight: is missing"});
  const ModelWeights reader(folder(two, [](auto& t) { erase_layer(t, "3"); }), two);
  EXPECT_EQ(reader.missing_mtp(), std::vector<int64_t>{2});
}

TEST_F(HfReaderTest, MtpCopiesMustEqualTheSharedTensors) {
  const ModelConfig config = small_config();
  for (const char* name : {"model.layers.2.embed_tokens.weight", "model.layers.2.shared_head.head.weight"}) {
    refuse(config, [&](auto& t) { t.at(name).bytes[40] ^= std::byte{1}; }, {name, "differs from "});
    refuse(config,
           [&](auto& t) {
             t.at(name).shape = {8, 24};
           },
           {name, "has shape [8, 24], expected [24, 8]"});
    EXPECT_NO_THROW(ModelWeights(folder(config, [&](auto& t) { t.erase(name); }), config));
  }
}

TEST_F(HfReaderTest, UnaskedMtpLayersAreIgnoredOrdinaryLayersAreNot) {
  const ModelConfig config = small_config();
  const auto path = folder(config, [](StoredTensors&) {});
  ModelConfig without = config;
  without.num_nextn_predict_layers = 0;
  EXPECT_NO_THROW(ModelWeights(path, without));
  ModelConfig shorter = config;
  shorter.num_hidden_layers = 1;
  shorter.num_nextn_predict_layers = 0;
  test::expect_input_error({"model.layers.1.", "is unexpected"}, [&] { ModelWeights(path, shorter); });
}

TEST_F(HfReaderTest, TiedHeadMayRepeatTheEmbedding) {
  const ModelConfig config = small_config({.tied = true});
  const auto copy = [](StoredTensors& t) { t["lm_head.weight"] = t["model.embed_tokens.weight"]; };
  EXPECT_NO_THROW(ModelWeights(folder(config, [](StoredTensors&) {}), config));
  EXPECT_NO_THROW(ModelWeights(folder(config, copy), config));
  refuse(config, [&](auto& t) { copy(t), t["lm_head.weight"].bytes[0] ^= std::byte{1}; },
         {"lm_head.weight: differs from model.embed_tokens.weight"});
}

// Made by transformers and its safetensors.
TEST_F(HfReaderTest, ReadsFoldersOfTransformers) {
  const std::filesystem::path goldens = std::filesystem::path(DSV3_SOURCE_DIR) / "tests/golden";
  int read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(goldens)) {
    if (!std::filesystem::exists(entry.path() / "model.safetensors")) continue;
    const ModelConfig config = ModelConfig::load(entry.path());
    const ModelWeights reader(entry.path(), config);
    const StoredTensors tensors = test::load_tensors(entry.path() / "model.safetensors");
    for (const ParamSpec& spec : param_table(config).params) {
      std::vector<double> all(static_cast<size_t>(spec.numel()));
      reader.read(spec, 0, std::span(all));
      for (const HfTensor& hf : spec.hf) {
        const auto& stored = tensors.at(hf.name);
        std::vector<double> expected(stored.bytes.size() / static_cast<size_t>(dtype_size(stored.dtype)));
        decode(stored.dtype, stored.bytes, std::span(expected));
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), all.begin() + hf.offset))
            << entry << hf.name;
      }
    }
    ++read;
  }
  EXPECT_GE(read, 10);
}

}  // namespace
}  // namespace dsv3
