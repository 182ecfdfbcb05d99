// Folders whose files disagree or lead elsewhere.
#include "dsv3/convert/hf_weights.h"

#include <gtest/gtest.h>

#include "convert/hf_case.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
constexpr const char* kIndex = "model.safetensors.index.json";

class HfWeightsTest : public testing::Test {
 protected:
  HfWeightsTest() {
    fs::create_directory(folder_);
    shard("1.st", {"a", "b"});
    shard("2.st", {"c"});
    index(R"({"metadata":{"total_size":24},"weight_map":{"a":"1.st","b":"1.st","c":"2.st"}})");
  }
  // Each tensor: two floats.
  void shard(const std::string& file, const std::vector<std::string>& names, DType dtype = DType::f32) {
    test::StoredTensors tensors;
    const auto size = static_cast<size_t>(2 * dtype_size(dtype));
    for (const auto& name : names) tensors[name] = {dtype, {2}, std::vector<std::byte>(size)};
    test::save_tensors(folder_ / file, tensors);
  }
  void index(std::string_view text) { test::write_file(folder_ / kIndex, text); }
  void refuse(std::initializer_list<std::string_view> parts) {
    test::expect_input_error(parts, [&] { HfWeights weights(folder_); });
  }
  test::TempDir dir_;
  fs::path folder_ = dir_ / "model";
};

TEST_F(HfWeightsTest, OpensShardsAndMoves) {
  HfWeights first(folder_);
  const HfWeights weights = std::move(first);
  EXPECT_EQ(weights.tensors().size(), 3u);
  ASSERT_NE(weights.find("c"), nullptr);
  EXPECT_EQ(weights.find("c")->file, (folder_ / "2.st").string());
  EXPECT_EQ(weights.find("d"), nullptr);
  std::vector<float> out(1, 7);
  weights.read(*weights.find("c"), 1, std::span(out));
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(weights.file(), (folder_ / kIndex).string());
}

TEST_F(HfWeightsTest, OneFileGoesBeforeAnIndex) {
  shard("model.safetensors", {"z"});
  EXPECT_NE(HfWeights(folder_).find("z"), nullptr);
}

TEST_F(HfWeightsTest, Row29And30ShardsOutsideAreRefusedUnopened) {
  index(R"({"weight_map":{"a":"../1.st"}})");
  refuse({"index.json: weight_map.a: shard \"../1.st\""});
  index(R"({"weight_map":{"a":"/dev/zero"}})");
  refuse({"index.json: weight_map.a: shard \"/dev/zero\""});
}

TEST_F(HfWeightsTest, Row31LinkOutOfTheFolder) {
  fs::rename(folder_ / "2.st", dir_ / "outside.st");
  fs::create_symlink(dir_ / "outside.st", folder_ / "2.st");
  refuse({"/model/2.st: is a link out of the folder"});
  fs::remove(folder_ / kIndex);
  fs::create_symlink(dir_ / "outside.st", folder_ / "model.safetensors");
  refuse({"/model/model.safetensors: is a link out of the folder"});
  // A folder whose name only begins alike is outside too.
  fs::create_directory(dir_ / "model2");
  fs::copy_file(dir_ / "outside.st", dir_ / "model2/x.st");
  fs::remove(folder_ / "model.safetensors");
  fs::create_symlink("../model2/x.st", folder_ / "model.safetensors");
  refuse({"is a link out of the folder"});
}

TEST_F(HfWeightsTest, LinksInsideTheFolderAndIntoTheCacheAreFollowed) {
  fs::rename(folder_ / "2.st", folder_ / "real");
  fs::create_symlink("real", folder_ / "2.st");
  EXPECT_EQ(HfWeights(folder_).tensors().size(), 3u);
  fs::create_directories(dir_ / "hub/snapshots/0123");
  fs::create_directories(dir_ / "hub/blobs");
  fs::copy_file(folder_ / "real", dir_ / "hub/blobs/4567");
  fs::create_symlink("../../blobs/4567", dir_ / "hub/snapshots/0123/model.safetensors");
  EXPECT_EQ(HfWeights(dir_ / "hub/snapshots/0123").tensors().size(), 1u);
}

TEST_F(HfWeightsTest, Row32OneKeyInTwoShards) {
  index(R"({"weight_map":{"a":"1.st","b":"1.st","c":"2.st","a":"2.st"}})");
  refuse({"index.json: weight_map.a: is in two shards"});
}

TEST_F(HfWeightsTest, Row33ShardLacksAListedTensor) {
  shard("2.st", {});
  refuse({"index.json: c: is missing in 2.st"});
  shard("2.st", {"c", "d"});
  refuse({"index.json: d: is in 2.st and not listed"});
  fs::remove(folder_ / "2.st");
  refuse({"/2.st: no such file"});
}

TEST_F(HfWeightsTest, Row34TensorInTwoShards) {
  shard("2.st", {"a", "c"});
  refuse({"index.json: a: is in 1.st and in 2.st"});
}

TEST_F(HfWeightsTest, EverythingThatDisagreesIsListed) {
  shard("2.st", {"a", "b", "d"});
  refuse(
      {"index.json: a: is in 1.st and in 2.st; b is in 1.st and in 2.st; c is missing in 2.st; "
       "d is in 2.st and not listed ("});
  std::vector<std::string> more;
  for (int i = 10; i < 40; ++i) more.push_back("x" + std::to_string(i));
  shard("2.st", more);
  refuse(
      {"index.json: c: is missing in 2.st; x10 is in 2.st", "x28 is in 2.st and not listed; and 11 more ("});
}

TEST_F(HfWeightsTest, Row35TotalSizeWrong) {
  index(R"({"metadata":{"total_size":23},"weight_map":{"a":"1.st","b":"1.st","c":"2.st"}})");
  refuse({"index.json: metadata.total_size: 23, the tensors hold 24 bytes"});
  index(R"({"metadata":{"total_size":12},"weight_map":{"a":"1.st","b":"1.st","c":"2.st"}})");
  refuse({"metadata.total_size: 12"});  // two bytes an element is the count of FP8 folders alone
  shard("2.st", {"c"}, DType::f8_e4m3);
  EXPECT_NO_THROW(HfWeights weights(folder_));
  index(R"({"weight_map":{"a":"1.st","b":"1.st","c":"2.st"}})");
  EXPECT_NO_THROW(HfWeights weights(folder_));
}

TEST_F(HfWeightsTest, PicklesAreRefusedByName) {
  for (const char* name :
       {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"}) {
    const auto folder = dir_ / (std::string("pickle-") + name);
    fs::create_directory(folder);
    test::expect_input_error({"model.safetensors: no such file, nor model.safetensors.index.json"},
                             [&] { HfWeights weights(folder); });
    test::write_file(folder / name, "x");
    test::expect_input_error({name, "is a pickle, only safetensors are read"},
                             [&] { HfWeights weights(folder); });
  }
}

TEST_F(HfWeightsTest, NamedPathThatIsNotThereIsUsage) {
  test::expect_error(ExitCode::usage, {"/none: no such file or folder"},
                     [&] { HfWeights weights(dir_ / "none"); });
}

TEST_F(HfWeightsTest, APathMayBeOneFile) {
  const HfWeights weights(folder_ / "2.st");
  EXPECT_EQ(weights.file(), (folder_ / "2.st").string());
  EXPECT_EQ(weights.tensors().size(), 1u);
}

TEST_F(HfWeightsTest, IntegersAreNoWeights) {
  shard("2.st", {"c"}, DType::i32);
  const HfWeights weights(folder_);
  std::vector<float> out(2);
  test::expect_input_error({"/2.st: c: has dtype I32, expected F64"},
                           [&] { weights.read(*weights.find("c"), 0, std::span(out)); });
}

}  // namespace
}  // namespace dsv3
