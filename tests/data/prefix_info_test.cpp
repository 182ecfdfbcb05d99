#include "dsv3/data/prefix_info.h"

#include <gtest/gtest.h>

#include "dsv3/data/tokenizer.h"
#include "support/files.h"

namespace dsv3 {
namespace {

TEST(PrefixInfo, SaysWhatTheFileSays) {
  test::TempDir dir;
  EXPECT_FALSE(read_prefix_info(dir / "none").tokens);
  test::write_file(dir / "p.json", R"({"tokenizer_hash": "ab", "eos_id": 3, "tokens": 9, "other": []})");
  const PrefixInfo info = read_prefix_info(dir / "p");
  EXPECT_EQ(info.tokenizer_hash, "ab");
  EXPECT_EQ(info.eos_id, 3);
  EXPECT_EQ(info.tokens, 9);
  EXPECT_FALSE(info.bytes || info.largest_id);
  test::write_file(dir / "p.json", "[]");
  EXPECT_FALSE(read_prefix_info(dir / "p").tokens) << "a file of somebody else";
}

TEST(PrefixInfo, DamageIsNamed) {
  test::TempDir dir;
  const auto refuse = [&](const char* text, std::initializer_list<std::string_view> parts) {
    test::write_file(dir / "p.json", text);
    test::expect_input_error(parts, [&] { read_prefix_info(dir / "p"); });
  };
  refuse("{\"tokens\": 9", {"p.json"});
  refuse(R"({"tokens": "9"})", {"p.json: tokens: \"9\", expected an integer"});
  refuse(R"({"largest_id": 1.5})", {"p.json: largest_id: 1.5, expected an integer"});
  refuse(R"({"tokenizer_hash": 7})", {"p.json: tokenizer_hash: 7, expected a string"});
}

class TokenizerOfFiles : public testing::Test {
 protected:
  TokenizerOfFiles() {
    for (const char* name : {"a", "b", "c", "d"}) data_.train.push_back({(dir_ / name).string()});
    data_.valid = {data_.train.back()};
    data_.train.pop_back();
    test::write_file(dir_ / "c.json", R"({"eos_id": 3})");  // a has none
  }
  void describe(const char* name, const std::string& hash,
                const std::string& tokenizer = "t/tokenizer.json") {
    test::write_file(dir_ / name,
                     R"({"tokenizer": ")" + tokenizer + R"(", "tokenizer_hash": ")" + hash + "\"}");
  }
  void refused(std::initializer_list<std::string_view> parts) {
    test::expect_input_error(parts, [&] { require_one_tokenizer(data_); });
  }

  test::TempDir dir_;
  DataConfig data_;
  const std::string golden_ = std::string(DSV3_SOURCE_DIR) + "/tests/data/tokenizers/v3";
};

TEST_F(TokenizerOfFiles, IsOneOfTrainAndValid) {
  require_one_tokenizer(data_);
  describe("b.json", "xxh3:1");
  require_one_tokenizer(data_);
  describe("d.json", "xxh3:1");
  require_one_tokenizer(data_);
  describe("d.json", "xxh3:2");
  refused({"d.json: tokenizer_hash: xxh3:2, ", "b.json has xxh3:1", "with one tokenizer"});
  describe("c.json", "xxh3:2");
  refused({"c.json: tokenizer_hash: xxh3:2, ", "b.json has xxh3:1"});
}

TEST_F(TokenizerOfFiles, IsTheOneThatTheRunNames) {
  data_.tokenizer = golden_;
  require_one_tokenizer(data_);
  describe("d.json", open_tokenizer(golden_)->hash());
  require_one_tokenizer(data_);
  data_.tokenizer = "byte";
  refused({"d.json: tokenizer_hash: xxh3:", "data.tokenizer (byte) has " + ByteTokenizer::hash(),
           "name the tokenizer that the files were prepared with"});
  describe("d.json", ByteTokenizer::hash());
  require_one_tokenizer(data_);
  // A file that nobody needs is not opened.
  describe("d.json", "xxh3:1");
  data_.tokenizer = (dir_ / "none").string();
  test::expect_error(ExitCode::usage, {"none: no such file"}, [&] { require_one_tokenizer(data_); });
  std::filesystem::remove(dir_ / "d.json");
  require_one_tokenizer(data_);
}

TEST_F(TokenizerOfFiles, IsMissedWhenTheRunNamesNone) {
  EXPECT_EQ(unnamed_tokenizer(data_), "");
  describe("a.json", "x", "byte");
  describe("d.json", "x");  // is evaluated only
  EXPECT_EQ(unnamed_tokenizer(data_), "");
  describe("b.json", "x");
  EXPECT_NE(unnamed_tokenizer(data_).find("b.json names the tokenizer t/tokenizer.json"), std::string::npos);
  data_.tokenizer = "byte";
  EXPECT_EQ(unnamed_tokenizer(data_), "");
}

TEST_F(TokenizerOfFiles, HasTheHashOfItsBytes) {
  EXPECT_EQ(tokenizer_hash("byte"), ByteTokenizer::hash());
  EXPECT_EQ(tokenizer_hash(golden_), open_tokenizer(golden_)->hash());
  EXPECT_EQ(tokenizer_hash(golden_ + "/tokenizer.json"), tokenizer_hash(golden_));
  test::write_file(dir_ / "large.json", std::string((2 << 20) + 7, 'x'));  // in pieces
  const std::string hash = tokenizer_hash(dir_ / "large.json");
  test::write_file(dir_ / "large.json", std::string((2 << 20) + 6, 'x') + "y");
  EXPECT_NE(tokenizer_hash(dir_ / "large.json"), hash);
  test::expect_input_error({"tokenizer.json", "is missing"}, [&] { tokenizer_hash(dir_.path().string()); });
}

}  // namespace
}  // namespace dsv3
