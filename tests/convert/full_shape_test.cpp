// The 671B shape: every header of the released folder, none of its bytes.
#include <gtest/gtest.h>

#include <cstdlib>

#include "dsv3/base/json.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/convert.h"
#include "support/files.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

class FullShape : public testing::Test {
 protected:
  void SetUp() override {
    const std::string tool = "python3 " DSV3_SOURCE_DIR "/tools/sparse_v3.py " + hf.string() + " > /dev/null";
    ASSERT_EQ(std::system(tool.c_str()), 0);
    test::reset_peak();
    start = test::cpu_seconds();
  }
  void TearDown() override {
    if (test::has_sanitizers()) return;  // both cost time and memory of their own
    EXPECT_LT(test::cpu_seconds() - start, 10.0);
    EXPECT_LT(test::memory_status("VmHWM:"), 1'000'000'000);
  }
  test::TempDir dir;
  fs::path hf = dir / "hf";
  double start = 0;
};

TEST_F(FullShape, DryRunsReadEveryHeader) {
  EXPECT_EQ(Checkpoint(hf).store().tensors().size(), 91'991u);
  ConvertOptions options;
  options.dry_run = true;
  const ConvertSummary to_dcp = convert(hf, dir / "dcp", options);
  EXPECT_EQ(to_dcp.tensors, 987);
  EXPECT_EQ(to_dcp.missing_mtp, 0);
  options.to = FolderFormat::hf;
  options.dtype = DType::f8_e4m3;
  const ConvertSummary to_hf = convert(hf, dir / "again", options);
  EXPECT_EQ(to_hf.tensors, 91'991);
  EXPECT_EQ(to_hf.bytes, 688'574'839'360u);
}

// One file of two layers: FP8 matrices of the full width become BF16.
TEST_F(FullShape, OnePartOfAShorterModelIsWritten) {
  Json config = read_json(hf / "config.json");
  config["num_nextn_predict_layers"] = 0;
  ConvertOptions options;
  options.config = test::write_file(dir / "config.json", config.dump());
  options.layers = 2;
  options.max_file_bytes = 64 << 20;
  options.dry_run = true;
  options.parts = convert(hf, dir / "dcp", options).files;
  ASSERT_GT(options.parts, 50);
  options.part = options.parts / 2;
  options.dry_run = false;
  EXPECT_FALSE(convert(hf, dir / "dcp", options).complete);
  const fs::path file = dir / "dcp.partial" / ("__0_" + std::to_string(options.part - 1) + ".distcp");
  EXPECT_GT(fs::file_size(file), 16u << 20);
}

}  // namespace
}  // namespace dsv3
