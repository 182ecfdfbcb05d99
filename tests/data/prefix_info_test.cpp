#include "dsv3/data/prefix_info.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace dsv3
