// FP8 through conversions: codes and scales are copied, or found again in their values.
#include "convert/convert_case.h"
#include "dsv3/base/json.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::small_config;
using ConvertFp8 = test::ConvertCase;

// As released, and as DeepSeek-V3.1 is: the scales are powers of two, so that few blocks hold a code of 448.
TEST_F(ConvertFp8, CopiesKeepCodesAndScalesMastersTheValues) {
  const auto fp8 = [](ConvertOptions& o) { o.dtype = DType::f8_e4m3; };
  ModelConfig config = small_config();
  config.hidden_size = 132;
  config.intermediate_size = 260;
  run(hf("hf", config), dir / "fp8", FolderFormat::hf, fp8);
  fs::copy(dir / "fp8", dir / "powers");
  fs::remove(dir / "powers/manifest.json");
  auto tensors = test::load_tensors(dir / "fp8/model.safetensors");
  uint64_t seed = 0;
  for (auto& [name, tensor] : tensors) {
    if (name.ends_with("_scale_inv"))
      for (size_t i = 3; i < tensor.bytes.size(); i += 4)  // 2^-8, 2^-10, …
        tensor.bytes[i - 1] = tensor.bytes[i - 2] = tensor.bytes[i - 3] = std::byte{0},
                         tensor.bytes[i] = std::byte{static_cast<uint8_t>(0x3b - i / 4 % 2)};
    if (tensor.dtype != DType::f8_e4m3) continue;
    for (size_t i = 0; i < tensor.bytes.size(); ++i) {
      const uint64_t code = philox_u64(++seed, 1, i);
      tensor.bytes[i] = static_cast<std::byte>(code % 0x7b | (code >> 8 & 0x80));  // up to 320
    }
  }
  test::save_tensors(dir / "powers/model.safetensors", tensors);
  Json json = read_json(dir / "powers/config.json");
  json["quantization_config"]["scale_fmt"] = "ue8m0";
  test::write_file(dir / "powers/config.json", json.dump());
  for (const std::string name : {"fp8", "powers"}) {
    SCOPED_TRACE(name);
    run(dir / name, dir / (name + "-again"), FolderFormat::hf, fp8);
    expect_equal(dir / name, dir / (name + "-again"));
    // What it says of its scales is as true of the copies; of new ones nobody knows.
    EXPECT_EQ(read_json(dir / (name + "-again/config.json"))["quantization_config"],
              read_json(dir / name / "config.json")["quantization_config"]);
    // Through masters: the values in any case.
    for (const DType dtype : {DType::bf16, DType::f32}) {
      const auto masters = [&](ConvertOptions& o) { o.dtype = dtype; };
      const std::string tag = name + dtype_name(dtype);
      run(dir / name, dir / (tag + "-dcp"), FolderFormat::dcp, masters);
      run(dir / (tag + "-dcp"), dir / (tag + "-third"), FolderFormat::hf, fp8);
      EXPECT_FALSE(
          read_json(dir / (tag + "-third/config.json"))["quantization_config"].contains("scale_fmt"));
      run(dir / (tag + "-third"), dir / (tag + "-dcp2"), FolderFormat::dcp, masters);
      expect_equal(dir / (tag + "-dcp"), dir / (tag + "-dcp2"));
    }
  }
  expect_equal(dir / "fp8", dir / "fp8F32-third");
}

// The experts of a shorter model lie elsewhere than those of the whole.
TEST_F(ConvertFp8, OfAShorterModelIsCopiedToo) {
  ModelConfig config = small_config();
  config.num_hidden_layers = 3;
  run(hf("hf", config), dir / "fp8", FolderFormat::hf, [](ConvertOptions& o) { o.dtype = DType::f8_e4m3; });
  run(dir / "fp8", dir / "short", FolderFormat::hf,
      [](ConvertOptions& o) { o.dtype = DType::f8_e4m3, o.layers = 2; });
  const auto whole = test::load_tensors(dir / "fp8/model.safetensors");
  const auto part = test::load_tensors(dir / "short/model.safetensors");
  EXPECT_EQ(part.at("model.layers.2.mlp.experts.3.down_proj.weight").bytes,
            whole.at("model.layers.3.mlp.experts.3.down_proj.weight").bytes);
  EXPECT_EQ(part.at("model.layers.2.mlp.experts.3.down_proj.weight_scale_inv").bytes,
            whole.at("model.layers.3.mlp.experts.3.down_proj.weight_scale_inv").bytes);
}

}  // namespace
}  // namespace dsv3
