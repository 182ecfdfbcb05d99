// Hugging Face folders in DeepSeek's FP8: written, read, and broken.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "convert/hf_case.h"
#include "dsv3/base/json.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/hf_plan.h"
#include "dsv3/convert/hf_weights.h"
#include "dsv3/convert/hf_writer.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::StoredTensors;

// Large enough for several blocks with ragged edges; some sizes are odd.
ModelConfig fp8_config() {
  ModelConfig config = test::small_config();
  config.hidden_size = 130;
  config.intermediate_size = 261;
  config.moe_intermediate_size = 5;
  config.q_lora_rank = 7;
  config.attention_bias = true;
  return config;
}

class HfFp8Test : public testing::Test {
 protected:
  fs::path write(const ModelConfig& config, const HfWriteOptions& options = {.dtype = DType::f8_e4m3}) {
    const auto path = dir_ / ("model-" + std::to_string(count_++));
    write_hf_folder(path, config, test::small_source, options);
    return path;
  }
  void refuse(const std::function<void(StoredTensors&)>& change,
              std::initializer_list<std::string_view> parts) {
    const ModelConfig config = fp8_config();
    const auto path = write(config);
    StoredTensors tensors = test::load_tensors(path / "model.safetensors");
    change(tensors);
    save(path / "model.safetensors", tensors);
    test::expect_input_error(parts, [&] { ModelWeights reader(path, config); });
  }
  // Larger dtypes first: some tensors have an odd number of bytes.
  static void save(const fs::path& path, const StoredTensors& tensors) {
    std::vector<SafetensorsWriter::Entry> entries;
    std::vector<const StoredTensor*> order;
    for (int64_t size : {8, 4, 2, 1}) {
      for (const auto& [name, tensor] : tensors) {
        if (dtype_size(tensor.dtype) != size) continue;
        entries.push_back({name, tensor.dtype, tensor.shape});
        order.push_back(&tensor);
      }
    }
    SafetensorsWriter writer(path, entries);
    for (const auto* tensor : order) writer.write(tensor->bytes);
    writer.finish();
  }
  using StoredTensor = test::StoredTensor;
  test::TempDir dir_;
  int count_ = 0;
};

constexpr const char* kGate = "model.layers.0.mlp.gate_proj.weight";
constexpr const char* kGateScale = "model.layers.0.mlp.gate_proj.weight_scale_inv";

TEST_F(HfFp8Test, TheReleasedTensorsAreFp8) {
  // 46,183 tensors and 45,808 scales, as the released index lists them.
  ModelConfig config = *ModelConfig::preset("671b");
  config.num_nextn_predict_layers = 1;
  int64_t tensors = static_cast<int64_t>(mtp_shared_copies(config).size()), scales = 0;
  for (const ParamSpec& spec : param_table(config).params) {
    tensors += static_cast<int64_t>(spec.hf.size());
    if (!is_fp8_weight(spec)) continue;
    scales += static_cast<int64_t>(spec.hf.size());
    for (const HfTensor& hf : spec.hf) {
      ASSERT_EQ(hf.shape.size(), 2u);
      ASSERT_NE(fp8_scale_name(hf.name), "");
    }
  }
  EXPECT_EQ(tensors, 46'183);
  EXPECT_EQ(scales, 45'808);
}

TEST_F(HfFp8Test, WritesAndReadsEveryElement) {
  const ModelConfig config = fp8_config();
  const auto path = write(config);
  const StoredTensors stored = test::load_tensors(path / "model.safetensors");
  EXPECT_EQ(stored.at(kGate).dtype, DType::f8_e4m3);
  EXPECT_EQ(stored.at(kGateScale).shape, (std::vector<int64_t>{3, 2}));
  const ModelWeights reader(path, config);
  for (const ParamSpec& spec : param_table(config).params) {
    std::vector<float> source(static_cast<size_t>(spec.numel()));
    test::small_source(spec, 0, source);
    for (const HfTensor& hf : spec.hf) {
      const auto& tensor = stored.at(hf.name);
      const bool fp8 = is_fp8_weight(spec);
      EXPECT_EQ(tensor.dtype, fp8                              ? DType::f8_e4m3
                              : spec.role == Role::router_bias ? DType::f32
                                                               : DType::bf16);
      EXPECT_EQ(stored.contains(fp8_scale_name(hf.name)), fp8) << hf.name;
      const auto numel =
          static_cast<size_t>(tensor.bytes.size() / static_cast<size_t>(dtype_size(tensor.dtype)));
      const auto mine = std::span(source).subspan(static_cast<size_t>(hf.offset), numel);
      std::vector<float> expected(numel);
      if (fp8) {
        const int64_t cols = hf.shape[1];
        const auto width = static_cast<size_t>(fp8_scale_shape(1, cols)[1]);
        for (int64_t row = 0; row < hf.shape[0]; row += 128) {
          const auto begin = static_cast<size_t>(row * cols);
          const auto count = static_cast<size_t>(std::min<int64_t>(128, hf.shape[0] - row) * cols);
          std::vector<std::byte> codes(count);
          std::vector<float> scales(width);
          quantise(mine.subspan(begin, count), cols, codes, scales);
          dequantise(codes, scales, cols, 0, std::span(expected).subspan(begin, count));
        }
      } else {
        std::vector<std::byte> bytes(tensor.bytes.size());
        encode(mine, tensor.dtype, bytes);
        decode(tensor.dtype, bytes, expected);
      }
      for (const auto& [from, to] :
           {std::pair<size_t, size_t>{0, numel}, {numel / 3, numel / 2}, {numel - 1, numel}}) {
        std::vector<float> got(to - from);
        reader.read(spec, hf.offset + static_cast<int64_t>(from), std::span(got));
        EXPECT_EQ(got, std::vector<float>(expected.begin() + static_cast<int64_t>(from),
                                          expected.begin() + static_cast<int64_t>(to)))
            << hf.name;
        std::vector<double> wide(to - from);
        reader.read(spec, hf.offset + static_cast<int64_t>(from), std::span(wide));
        for (size_t i = 0; i < wide.size(); ++i) EXPECT_EQ(static_cast<float>(wide[i]), got[i]);
      }
    }
  }
}

TEST_F(HfFp8Test, ConfigSaysHowAndIsReadBack) {
  const auto path = write(fp8_config());
  const Json json = read_json(path / "config.json");
  EXPECT_EQ(json["torch_dtype"], "bfloat16");
  EXPECT_EQ(
      json["quantization_config"].dump(),
      R"({"activation_scheme":"dynamic","fmt":"e4m3","quant_method":"fp8","weight_block_size":[128,128]})");
  const ModelConfig config = ModelConfig::load(path);
  EXPECT_NO_THROW(ModelWeights(path, config));
  // What is written from it in bf16 says nothing of FP8.
  const auto plain = dir_ / "plain";
  write_hf_folder(plain, config, test::small_source);
  EXPECT_FALSE(read_json(plain / "config.json").contains("quantization_config"));
}

TEST_F(HfFp8Test, ReadAndWrittenAgainItIsTheSameFile) {
  const ModelConfig config = fp8_config();
  const auto first = write(config);
  const ModelWeights reader(first, config);
  const auto source = [&](const ParamSpec& spec, int64_t begin, std::span<float> out) {
    reader.read(spec, begin, out);
  };
  write_hf_folder(dir_ / "again", config, source, {.dtype = DType::f8_e4m3});
  const InputFile a(first / "model.safetensors"), b(dir_ / "again/model.safetensors");
  ASSERT_EQ(a.size(), b.size());
  std::vector<std::byte> left(a.size()), right(a.size());
  a.read(left, 0);
  b.read(right, 0);
  EXPECT_TRUE(left == right);
}

TEST_F(HfFp8Test, ScalesStayInTheirWeightsShard) {
  const ModelConfig config = fp8_config();
  const auto path = write(config, {.dtype = DType::f8_e4m3, .max_shard_bytes = 40'000});
  const Json map = read_json(path / "model.safetensors.index.json")["weight_map"];
  int pairs = 0;
  for (const auto& [name, shard] : map.items()) {
    const auto scale = map.find(fp8_scale_name(name));
    if (scale == map.end()) continue;
    EXPECT_EQ(*scale, shard) << name;
    ++pairs;
  }
  EXPECT_GT(pairs, 20);
  EXPECT_NO_THROW(ModelWeights(path, config));  // compares total_size and every name
}

// Pieces of 1 MiB, each element once, 128 rows in memory.
TEST_F(HfFp8Test, LargeTensorsComeInPieces) {
  ModelConfig config = fp8_config();
  config.hidden_size = 3000;
  config.intermediate_size = 3001;
  int64_t asked = 0;
  const auto source = [&](const ParamSpec& spec, int64_t begin, std::span<float> out) {
    EXPECT_LE(out.size(), size_t{1} << 18);
    asked += static_cast<int64_t>(out.size());
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<float>((begin + static_cast<int64_t>(i)) % 1009 - 504);
    (void)spec;
  };
  test::reset_peak();
  const int64_t before = test::memory_status("VmRSS:");
  write_hf_folder(dir_ / "large", config, source, {.dtype = DType::f8_e4m3});
  if (!test::has_sanitizers()) {
    EXPECT_LT(test::memory_status("VmHWM:") - before, 16 << 20);
  }
  int64_t expected = 0;
  for (const ParamSpec& spec : param_table(config).params) expected += spec.numel();
  for (const SharedCopy& copy : mtp_shared_copies(config))
    expected += param_table(config).find(copy.of)->numel();
  EXPECT_EQ(asked, expected);
  const ModelWeights reader(dir_ / "large", config);
  const ParamTable table = param_table(config);
  const ParamSpec& gate = *table.find(kGate);
  std::vector<float> got(static_cast<size_t>(gate.numel()) - 7);
  reader.read(gate, 7, std::span(got));
  for (size_t i = 0; i < got.size(); ++i) {
    const auto exact = static_cast<float>((i + 7) % 1009) - 504;
    ASSERT_LE(std::abs(got[i] - exact), std::max(std::abs(exact) / 16, 504 / 448.0f * 0x1p-10f) * 1.00001f)
        << i;
  }
}

TEST_F(HfFp8Test, ScalesThatDoNotFitAreListed) {
  refuse([](auto& t) { t.erase(kGateScale); },
         {"model.safetensors: model.layers.0.mlp.gate_proj.weight_scale_inv: is missing, the weight is "
          "F8_E4M3"});
  refuse([](auto& t) { t.at(kGateScale).shape = {2, 3}; }, {kGateScale, "has shape [2, 3], expected [3, 2]"});
  refuse(
      [](auto& t) {
        t.at(kGateScale) = {DType::bf16, {3, 2}, std::vector<std::byte>(12)};
      },
      {kGateScale, "has dtype BF16, expected F32"});
  refuse([](auto& t) { t.erase(kGateScale), t.erase("model.norm.weight"); },
         {"gate_proj.weight_scale_inv: is missing, the weight is F8_E4M3; model.norm.weight is missing"});
  refuse([](auto& t) { t.erase(kGate); },
         {"gate_proj.weight: is missing; ", "weight_scale_inv is unexpected"});
  refuse([](auto& t) { t["model.norm.weight_scale_inv"] = t.at(kGateScale); },
         {"model.norm.weight_scale_inv: is unexpected"});
  refuse(
      [](auto& t) {
        t.at(kGate) = {DType::bf16, {261, 130}, std::vector<std::byte>(2 * 261 * 130)};
      },
      {"gate_proj.weight_scale_inv: is unexpected"});
  // A bias has no name for scales, a norm no blocks.
  refuse(
      [](auto& t) {
        t.at("model.layers.0.self_attn.o_proj.bias") = {DType::f8_e4m3, {130}, std::vector<std::byte>(130)};
      },
      {"o_proj.bias: has dtype F8_E4M3, expected F64, F32, F16, BF16, or F8_E4M3 in a matrix"});
}

TEST_F(HfFp8Test, AnMtpModuleThatNobodyAsksForIsIgnoredWithItsScales) {
  ModelConfig config = fp8_config();
  const auto path = write(config);
  config.num_nextn_predict_layers = 0;
  EXPECT_NO_THROW(ModelWeights(path, config));
}

TEST_F(HfFp8Test, FoldersWithoutAModelSayWhatIsWrong) {
  StoredTensors tensors{{"a.weight", {DType::f8_e4m3, {2, 2}, std::vector<std::byte>(4)}}};
  fs::create_directory(dir_ / "f");
  save(dir_ / "f/model.safetensors", tensors);
  const HfWeights weights(dir_ / "f");
  std::vector<float> out(1);
  test::expect_input_error({"model.safetensors: a.weight_scale_inv: is missing"},
                           [&] { weights.read(*weights.find("a.weight"), 0, std::span(out)); });
}

}  // namespace
}  // namespace dsv3
