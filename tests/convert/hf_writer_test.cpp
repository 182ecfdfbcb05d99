#include "dsv3/convert/hf_writer.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "convert/hf_case.h"
#include "dsv3/base/json.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::small_config;

size_t count_files(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
}

TEST(HfWriter, OneFileWhenItFits) {
  test::TempDir dir;
  write_hf_folder(dir / "out", small_config(), test::small_source);
  EXPECT_EQ(count_files(dir.path()), 1u);
  EXPECT_EQ(count_files(dir / "out"), 2u);
  EXPECT_TRUE(fs::exists(dir / "out/model.safetensors"));
  EXPECT_EQ(SafetensorsFile(dir / "out/model.safetensors").metadata().at("format"), "pt");
}

TEST(HfWriter, ConfigIsTheModelsOwn) {
  test::TempDir dir;
  ModelConfig config = small_config();
  config.source = parse_json(R"({"auto_map":{"AutoModel":"x.py"},"quantization_config":{"quant_method":"fp8"},
                                 "dtype":"float32","architectures":["X"],"hidden_act":"silu"})",
                             "config.json");
  write_hf_folder(dir / "out", config, test::small_source, {.dtype = DType::f16});
  const Json json = read_json(dir / "out/config.json");
  EXPECT_EQ(json["torch_dtype"], "float16");
  EXPECT_EQ(json["architectures"].dump(), R"(["DeepseekV3ForCausalLM"])");
  EXPECT_EQ(json["model_type"], "deepseek_v3");
  EXPECT_EQ(json["hidden_act"], "silu");
  for (const char* key : {"auto_map", "quantization_config", "dtype"})
    EXPECT_FALSE(json.contains(key)) << key;
  const ModelConfig back = ModelConfig::load(dir / "out");
  EXPECT_EQ(back.num_nextn_predict_layers, 1);
  EXPECT_EQ(back.q_lora_rank, config.q_lora_rank);
}

TEST(HfWriter, EveryDTypeRoundsAndTheCorrectionBiasStaysF32) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    test::TempDir dir;
    ModelConfig config = small_config();
    config.q_lora_rank = 5;  // an odd norm: a bias in F32 after it would begin misaligned
    write_hf_folder(dir / "out", config, test::small_source, {.dtype = dtype});
    const ModelWeights reader(dir / "out", config);
    for (const ParamSpec& spec : param_table(config).params) {
      std::vector<float> expected(static_cast<size_t>(spec.numel())), got(expected.size());
      test::small_source(spec, 0, expected);
      if (spec.role != Role::router_bias) {
        std::vector<std::byte> bytes(expected.size() * static_cast<size_t>(dtype_size(dtype)));
        encode(expected, dtype, bytes);
        decode(dtype, bytes, expected);
      }
      reader.read(spec, 0, std::span(got));
      EXPECT_EQ(got, expected) << dtype_name(dtype) << " " << spec.name;
    }
  }
}

TEST(HfWriter, ShardsAndIndexAgreeWithTheReader) {
  test::TempDir dir;
  const ModelConfig config = small_config({.mtp = 2, .tied = true});
  write_hf_folder(dir / "out", config, test::small_source, {.dtype = DType::bf16, .max_shard_bytes = 1000});
  const Json index = read_json(dir / "out/model.safetensors.index.json");
  const size_t shards = count_files(dir / "out") - 2;
  EXPECT_GT(shards, 3u);
  for (const auto& entry : fs::directory_iterator(dir / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(entry.path());
    EXPECT_FALSE(file.tensors().empty());
    EXPECT_TRUE(file.tensors().back().end <= 1000 || file.tensors().size() == 1) << entry;
  }
  EXPECT_EQ(
      index["weight_map"]["model.embed_tokens.weight"],
      "model-00001-of-000" + std::string(shards < 10 ? "0" : "") + std::to_string(shards) + ".safetensors");
  EXPECT_TRUE(index["weight_map"].contains("model.layers.3.shared_head.head.weight"));
  EXPECT_FALSE(index["weight_map"].contains("lm_head.weight"));
  const ModelWeights reader(dir / "out", config);  // checks total_size and every name
  EXPECT_TRUE(reader.missing_mtp().empty());
}

TEST(HfWriter, LeavesNothingBehindWhenItFails) {
  test::TempDir dir;
  const auto failing = [](const ParamSpec& spec, int64_t, std::span<float>) {
    if (spec.role == Role::final_norm) throw std::runtime_error("no more");
  };
  EXPECT_THROW(write_hf_folder(dir / "out", small_config(), failing), std::runtime_error);
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(HfWriter, NeverWritesOverSomething) {
  test::TempDir dir;
  fs::create_directory(dir / "out");
  test::expect_error(ExitCode::usage, {"/out: exists already"},
                     [&] { write_hf_folder(dir / "out", small_config(), test::small_source); });
  fs::create_symlink("nowhere", dir / "link");
  test::expect_error(ExitCode::usage, {"/link: exists already"},
                     [&] { write_hf_folder(dir / "link/", small_config(), test::small_source); });
  EXPECT_EQ(count_files(dir / "out"), 0u);
  write_hf_folder(dir / "new/", small_config(), test::small_source);
  EXPECT_EQ(count_files(dir / "new"), 2u);
}

}  // namespace
}  // namespace dsv3
