// Which checkpoint of a run a command takes, and which it refuses.
#include <gtest/gtest.h>

#include "cli/saving.h"

namespace dsv3::test {
namespace {

TEST(ValidCheckpoint, AnOlderCheckpointIsNotTakenInSilence) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 6)).code, 0);
  const fs::path older = dir / "run/checkpoints/step-3";
  const std::vector<std::string> eval = {"eval",      "--data", kText,     "--seq-len", "32",
                                         "--batches", "2",      "--model", older};
  const std::string expected = dsv3(eval).out;
  const auto damage = [&](const std::string& name, const fs::path& run) {
    fs::copy(dir / "run", run, fs::copy_options::recursive);
    const fs::path newest = run / "checkpoints/step-6";
    if (name != "a bit") return void(fs::remove(newest / name));
    std::string bytes = read_file(newest / "__0_0.distcp");
    bytes[bytes.size() / 8] ^= 1;  // of a weight: moments come behind them
    write_file(newest / "__0_0.distcp", bytes);
  };
  for (const std::string name : {".metadata", "manifest.json", "a bit"}) {
    SCOPED_TRACE(name);
    const fs::path run = dir / ("run" + name);
    damage(name, run);
    std::vector<std::vector<std::string>> commands = {
        {"export", run, dir / ("hf" + name), "--dtype", "fp32"},
        {"eval", "--data", kText, "--seq-len", "32", "--batches", "2", "--model", run},
        train(dir / ("next" + name), {"--model.init=" + run.string(), "--train.dtype=fp32"}, 1)};
    // Of these show reads no bytes, and diff compares what it is given: damage ends it.
    if (name != "a bit")
      commands.insert(commands.end(), {{"ckpt", "show", run}, {"ckpt", "diff", run, older}});
    for (const std::vector<std::string>& args : commands) {
      const Result result = dsv3(args);
      EXPECT_EQ(result.code, 0) << args[0] << ": " << result.err;
      for (const char* part : {"warning: ", "step-6 is not valid"})
        EXPECT_NE(result.err.find(part), std::string::npos) << args[0] << ": " << result.err;
      if (args[0] == "eval") {
        EXPECT_EQ(result.out, expected);
      }
    }
    EXPECT_EQ(dsv3({"ckpt", "diff", dir / ("hf" + name), older}).code, 0);
  }
}

// The name says nothing: the same prefix was prepared again, by another tokenizer with as many ids.
TEST(ValidCheckpoint, OfAnotherTokenizerIsRefused) {
  TempDir dir;
  for (const char* type : {".bin", ".idx"}) fs::copy(kText + type, (dir / "text").string() + type);
  const auto described = [&](const char* hash) {
    write_file(dir / "text.json", Json({{"tokenizer_hash", hash}}).dump());
  };
  const std::vector<std::string> data = {"--data.train=" + (dir / "text").string()};
  described("xxh3:1");
  ASSERT_EQ(dsv3(saving(dir / "run", 3, data)).code, 0);
  EXPECT_EQ(dsv3(going_on(dir / "run", 4, data)).code, 0);
  described("xxh3:2");
  expect_failure(dsv3(going_on(dir / "run", 6, data)), ExitCode::usage,
                 {"data.train", "another tokenizer", "step-4", "xxh3:2 here, xxh3:1 there"});
  fs::remove(dir / "text.json");  // nobody says: it is remembered
  EXPECT_EQ(dsv3(going_on(dir / "run", 6, data)).code, 0);
  described("xxh3:2");
  expect_failure(dsv3(going_on(dir / "run", 7, data)), ExitCode::usage, {"another tokenizer", "step-6"});
}

}  // namespace
}  // namespace dsv3::test
