#include "cli/run.h"
#include "dsv3/base/json.h"

namespace dsv3::test {
namespace {

class PrepareCommand : public testing::Test {
 protected:
  PrepareCommand() { write_file(dir_ / "a.txt", "hello"); }
  Result prepare(std::vector<std::string> args) {
    args.insert(args.begin(), "prepare");
    return dsv3(args, {.cwd = dir_.path()});
  }
  TempDir dir_;
};

TEST_F(PrepareCommand, WritesTokenFiles) {
  const Result result = prepare({"a.txt", "--out", "text", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json["train"]["documents"], 1);
  EXPECT_EQ(json["train"]["tokens"], 6);  // and eos
  for (const char* name : {"text.bin", "text.idx", "text.json"})
    EXPECT_TRUE(std::filesystem::exists(dir_ / name)) << name;
  EXPECT_NE(prepare({"a.txt", "--out", "text"}).out.find("1 documents, 6 tokens, 5 bytes"),
            std::string::npos);
}

TEST_F(PrepareCommand, Errors) {
  expect_failure(prepare({"a.txt"}), ExitCode::usage, {"--out"});
  expect_failure(prepare({"none.txt", "--out", "text"}), ExitCode::usage, {"none.txt"});
  expect_failure(prepare({"a.txt", "--out", "text", "--tokenizer", "none"}), ExitCode::usage, {"none"});
  expect_failure(prepare({"a.txt", "--out", "text", "--valid-fraction", "x"}), ExitCode::usage,
                 {"--valid-fraction"});
  expect_failure(prepare({"a.txt", "--out", "text", "--out", "text"}), ExitCode::usage, {"--out"});
  expect_failure(prepare({"a.txt", "--out", "/proc/none/text"}), ExitCode::failed, {"/proc/none"});
  EXPECT_FALSE(std::filesystem::exists(dir_ / "text.bin"));
}

TEST_F(PrepareCommand, InterruptIs130AndTermination143) {
  std::filesystem::resize_file(write_file(dir_ / "large.txt", ""),
                               2000000000);  // long enough to be interrupted
  for (const auto& [signal, code] : {std::pair(SIGINT, 130), std::pair(SIGTERM, 143)}) {
    const Result result = dsv3({"prepare", "large.txt", "--out", "text"},
                               {.cwd = dir_.path(), .signal = signal, .signal_after_ms = 100});
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_FALSE(std::filesystem::exists(dir_ / "text.bin"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "text.idx"));
  }
}

}  // namespace
}  // namespace dsv3::test
