#include "cli/run.h"

namespace dsv3::test {
namespace {

class TokenizerCommand : public testing::Test {
 protected:
  Result run(std::vector<std::string> args, std::string_view input, std::string tokenizer = golden()) {
    args.insert(args.begin(), "tokenizer");
    args.insert(args.end(), {"--tokenizer", std::move(tokenizer)});
    return dsv3(args, {.in_from = write_file(dir_ / "in", input)});
  }
  static std::string golden() { return DSV3_SOURCE_DIR "/tests/data/tokenizers/llama3"; }
  TempDir dir_;
};

TEST_F(TokenizerCommand, EncodesAndDecodes) {
  const std::string text = "The word's\n\n  end é中 12345";
  const Result ids = run({"encode"}, text);
  ASSERT_EQ(ids.code, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 1);
  EXPECT_EQ(run({"decode"}, ids.out).out, text);
  const Result special = run({"encode", "--special"}, text);
  EXPECT_EQ(special.out, "0 " + ids.out.substr(0, ids.out.size() - 1) + " 1\n");
  EXPECT_EQ(run({"decode"}, special.out).out, "<|bos|>" + text + "<|eos|>");
  EXPECT_EQ(run({"decode", "--skip-special"}, special.out).out, text);
  EXPECT_EQ(run({"encode"}, "a\xff", "byte").out, "97 255\n");
}

TEST_F(TokenizerCommand, JsonLinesAreTextsByThemselves) {
  const std::string lines = "\"a\\nb\"\n\"\"\n\"中\"\n";
  const Result ids = run({"encode", "--json-lines"}, lines);
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 3) << ids.err;
  EXPECT_EQ(run({"decode", "--json-lines"}, ids.out).out, lines);
}

TEST_F(TokenizerCommand, Errors) {
  expect_failure(dsv3({"tokenizer"}), ExitCode::usage, {"subcommand"});
  expect_failure(dsv3({"tokenizer", "encode"}), ExitCode::usage, {"--tokenizer"});
  expect_failure(run({"encode"}, "a", "none.json"), ExitCode::usage, {"--tokenizer: none.json"});
  expect_failure(run({"encode"}, "ab\xff"), ExitCode::content, {"standard input: byte 2: is not UTF-8"});
  expect_failure(run({"encode", "--json-lines"}, "7\n"), ExitCode::content, {"standard input"});
  expect_failure(run({"decode"}, "1 2 x"), ExitCode::content, {"standard input: id 2: x, expected 0 to"});
  expect_failure(run({"decode"}, "-1"), ExitCode::content, {"id 0: -1"});
  expect_failure(run({"decode"}, "99999999999"), ExitCode::content, {"id 0: 99999999999"});
}

}  // namespace
}  // namespace dsv3::test
