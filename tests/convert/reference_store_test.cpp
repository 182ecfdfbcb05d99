// The layout of the reference's converter: as PyTorch stored it (tools/golden/reference_dcp.py), and cut up.
#include "dsv3/convert/reference_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "convert/hf_case.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/convert.h"
#include "dsv3/convert/dcp_writer.h"
#include "dsv3/convert/hf_writer.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::StoredTensors;

const fs::path kFixture = DSV3_SOURCE_DIR "/tests/convert/reference";

void expect_equal(const fs::path& a, const fs::path& b) {
  for (const auto& difference : diff_checkpoints(Checkpoint(a), Checkpoint(b)))
    ADD_FAILURE() << difference.name << ": " << difference.what;
}

// A small model as Hugging Face's folder, and its tensors in the reference's layout, row-major as FSDP saves
// them. Layer 0 is dense, layer 1 has experts, layers 2 and 3 are MTP modules.
class Reference : public testing::Test {
 protected:
  Reference() {
    write_hf_folder(dir / "hf", config, test::small_source, {.dtype = DType::f32});
    const StoredTensors tensors = test::load_tensors(dir / "hf/model.safetensors");
    for (const auto& [name, tensor] : tensors) {
      const size_t experts = name.find(".mlp.experts.");
      if (experts == std::string::npos) {
        layout[renamed(name)] = tensor;
      } else if (name.find(".mlp.experts.0.") != std::string::npos) {
        const std::string module = name.substr(0, experts + 13), projection = name.substr(experts + 15);
        layout[renamed(module + projection)] = joined(tensors, module, projection);
      }
    }
  }

  static std::string renamed(const std::string& name) {
    for (const auto& [hf, reference] :
         {std::pair<std::string, std::string>{"model.layers.2.", "0."}, {"model.layers.3.", "1."}}) {
      if (!name.starts_with(hf)) continue;
      const std::string rest = name.substr(hf.size());
      const bool own = rest == "enorm.weight" || rest == "hnorm.weight" || rest == "eh_proj.weight";
      return "model.mtp.mtp_layers." + reference + (own ? "" : "layer.") + rest;
    }
    return "model." + name;
  }

  // [rows, cols] of each of four experts to [4 · cols, rows].
  static test::StoredTensor joined(const StoredTensors& tensors, const std::string& module,
                                   const std::string& projection) {
    const auto& shape = tensors.at(module + "0." + projection).shape;
    const auto rows = static_cast<size_t>(shape[0]), cols = static_cast<size_t>(shape[1]);
    test::StoredTensor out{DType::f32, {4 * shape[1], shape[0]}, std::vector<std::byte>(16 * rows * cols)};
    for (size_t e = 0; e < 4; ++e) {
      const auto& one = tensors.at(module + std::to_string(e) + "." + projection).bytes;
      for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c)
          std::memcpy(&out.bytes[((e * cols + c) * rows + r) * 4], &one[(r * cols + c) * 4], 4);
    }
    return out;
  }

  // Matrices are cut at row 5 and at column 2, where they have both.
  fs::path save(const std::string& name) {
    fs::create_directories(dir / name);
    DcpFileWriter writer(dir / name / "__0_0.distcp");
    for (const auto& [key, tensor] : layout) {
      const auto& shape = tensor.shape;
      if (shape.size() != 2 || shape[0] < 6 || shape[1] < 3) {
        writer.tensor(key, {key}, tensor.dtype, shape, std::vector<int64_t>(shape.size()), shape,
                      tensor.bytes);
        continue;
      }
      for (const auto& [row, rows] : {std::pair<int64_t, int64_t>{0, 5}, {5, shape[0] - 5}})
        for (const auto& [col, cols] : {std::pair<int64_t, int64_t>{0, 2}, {2, shape[1] - 2}}) {
          std::vector<std::byte> part;
          for (int64_t r = row; r < row + rows; ++r) {
            const auto from = tensor.bytes.begin() + (r * shape[1] + col) * 4;
            part.insert(part.end(), from, from + cols * 4);
          }
          writer.tensor(key, {key}, tensor.dtype, shape, {row, col}, {rows, cols}, part);
        }
    }
    finish_dcp_folder(dir / name, writer.finish());
    return dir / name;
  }

  ConvertSummary run(const fs::path& from, const fs::path& to, FolderFormat format = FolderFormat::hf) {
    ConvertOptions options;
    options.to = format;
    options.from_reference = true;
    options.config = dir / "hf/config.json";
    return convert(from, to, options);
  }
  void refuse(std::initializer_list<std::string_view> parts) {
    const fs::path from = save("hostile");
    test::expect_input_error(parts, [&] { run(from, dir / "out"); });
    EXPECT_FALSE(fs::exists(dir / "out"));
    fs::remove_all(from);
  }

  const ModelConfig config = test::small_config({.mtp = 2});
  test::TempDir dir;
  StoredTensors layout;
};

TEST_F(Reference, OfItsConverterIsTheFolderThatItWasMadeFrom) {
  ConvertOptions options;
  options.from_reference = true;
  options.config = kFixture / "hf/config.json";
  for (const FolderFormat format : {FolderFormat::hf, FolderFormat::dcp}) {
    options.to = format;
    const fs::path out = dir / (format == FolderFormat::hf ? "out" : "dcp");
    EXPECT_TRUE(convert(kFixture / "dcp", out, options).complete);
  }
  expect_equal(kFixture / "hf", dir / "out");
  ConvertOptions back;
  back.to = FolderFormat::hf;
  convert(dir / "dcp", dir / "back", back);
  expect_equal(kFixture / "hf", dir / "back");
}

// Any range of any tensor: the start of a row, rows, the rest of one.
TEST_F(Reference, RangesOfTensorsAreThoseOfTheWhole) {
  const ReferenceStore store(kFixture / "dcp", ModelConfig::load(kFixture / "hf"));
  for (const auto& [name, whole] : test::load_tensors(kFixture / "hf/model.safetensors")) {
    const StoredTensor* tensor = store.find("model." + name);
    ASSERT_NE(tensor, nullptr) << name;
    ASSERT_EQ(tensor->shape, whole.shape) << name;
    const auto size = static_cast<size_t>(dtype_size(tensor->dtype));
    const size_t numel = whole.bytes.size() / size;
    for (size_t begin = 0; begin <= numel; ++begin)
      for (size_t end = begin; end <= numel; end += 5) {
        std::vector<std::byte> part((end - begin) * size);
        store.read_bytes(*tensor, static_cast<int64_t>(begin), part);
        ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.bytes.begin() + begin * size))
            << name << " " << begin << " " << end;
      }
  }
}

// A matrix that PyTorch stored with the strides of a transpose, as itself.
TEST_F(Reference, TransposedStorageIsReadInTheOrderOfTheTensor) {
  const DcpFolder folder(kFixture / "dcp");
  const StoredTensors tensors = test::load_tensors(kFixture / "hf/model.safetensors");
  const StoredTensor* matrix = folder.find("model.model.layers.0.mlp.experts.up_proj.weight");
  ASSERT_EQ(matrix->shape, (std::vector<int64_t>{32, 6}));
  for (int64_t begin = 0; begin < 32 * 6; ++begin)
    for (int64_t end = begin; end <= 32 * 6; end += 7) {
      std::vector<std::byte> part(static_cast<size_t>(end - begin) * 2);
      folder.read_bytes(*matrix, begin, part);
      for (int64_t at = begin; at < end; ++at) {
        const int64_t expert = at / 6 / 8, h = at / 6 % 8, i = at % 6;
        const auto& one =
            tensors.at("model.layers.0.mlp.experts." + std::to_string(expert) + ".up_proj.weight");
        ASSERT_EQ(std::memcmp(&part[static_cast<size_t>(at - begin) * 2],
                              &one.bytes[static_cast<size_t>(i * 8 + h) * 2], 2),
                  0)
            << begin << " " << end << " " << at;
      }
    }
  const VerifyResult verified = verify_checkpoint(kFixture / "dcp", 1);
  EXPECT_TRUE(!verified.verified && verified.damaged.empty());
}

TEST_F(Reference, CutIntoBlocksItIsTheSame) {
  EXPECT_TRUE(run(save("dcp"), dir / "out").complete);
  expect_equal(dir / "hf", dir / "out");
}

TEST_F(Reference, WhatTheModelDoesNotHaveIsLeftOut) {
  layout["model.model.layers.2.self_attn.rotary_emb.inv_freq"] = layout.at("model.model.norm.weight");
  layout["optim.state.model.norm.weight.exp_avg"] = layout.at("model.model.norm.weight");
  std::erase_if(layout, [](const auto& entry) { return entry.first.starts_with("model.mtp.mtp_layers.1."); });
  const ConvertSummary summary = run(save("dcp"), dir / "out");
  EXPECT_EQ(summary.missing_mtp, 1);
}

TEST_F(Reference, AMissingMatrixOfExpertsIsNamed) {
  layout.erase("model.model.layers.1.mlp.experts.up_proj.weight");
  refuse({".metadata", "model.layers.1.mlp.experts.0.up_proj.weight", "is missing", "experts.3.up_proj"});
}

TEST_F(Reference, RowsThatTheExpertsDoNotDivideAreRefused) {
  test::StoredTensor& matrix = layout.at("model.model.layers.1.mlp.experts.down_proj.weight");
  ASSERT_EQ(matrix.shape, (std::vector<int64_t>{24, 8}));
  matrix.shape[0] = 23;
  matrix.bytes.resize(23 * 8 * 4);
  refuse({".metadata", "model.model.layers.1.mlp.experts.down_proj.weight",
          "has shape [23, 8], expected [24, 8] of 4 experts"});
}

TEST_F(Reference, AMatrixThatIsNotTransposedIsRefused) {
  std::ranges::reverse(layout.at("model.mtp.mtp_layers.1.layer.mlp.experts.gate_proj.weight").shape);
  refuse(
      {"model.mtp.mtp_layers.1.layer.mlp.experts.gate_proj.weight", "has shape [6, 32], expected [32, 6]"});
}

TEST_F(Reference, TwoTensorsOfOneNameAreRefused) {
  layout["model.model.layers.2.enorm.weight"] = layout.at("model.mtp.mtp_layers.0.enorm.weight");
  refuse({"model.mtp.mtp_layers.0.enorm.weight", "another tensor stands for model.model.layers.2.enorm"});
  layout.erase("model.model.layers.2.enorm.weight");
  layout["model.model.layers.1.mlp.experts.2.gate_proj.weight"] =
      layout.at("model.model.layers.1.mlp.experts.gate_proj.weight");
  refuse({"model.model.layers.1.mlp.experts.2.gate_proj.weight", "another tensor stands for"});
}

TEST_F(Reference, AnUnknownTensorIsRefused) {
  layout["model.model.layers.1.mlp.experts.gate_proj.weight_scale_inv"] =
      layout.at("model.model.norm.weight");
  refuse({"model.model.layers.1.mlp.experts.gate_proj.weight_scale_inv", "is unexpected"});
}

TEST_F(Reference, IsSaidByTheFlagAndADcpFolderAlone) {
  test::expect_error(ExitCode::usage, {"--from", "is no DCP folder"}, [&] { run(dir / "hf", dir / "out"); });
  ConvertOptions options;
  options.to = FolderFormat::hf;
  options.config = dir / "hf/config.json";
  test::expect_input_error({"is missing"}, [&] { convert(save("dcp"), dir / "out", options); });
}

}  // namespace
}  // namespace dsv3
