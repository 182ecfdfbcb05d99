// What a run trains on: sources that change while it stands, and files of other tokenizers.
#include <gtest/gtest.h>

#include "cli/ranks.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3::test {
namespace {

constexpr int64_t kSeqLen = 32, kVocab = 259;  // of the run and its model

// Samples of their own; from `forbidden` on, of ids that are outside the model's vocabulary.
void write_samples(const fs::path& prefix, int64_t samples, int64_t forbidden) {
  IndexedDatasetWriter writer(prefix, 1000);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < samples * kSeqLen + 1; ++i)
    ids.push_back(static_cast<int32_t>(i / kSeqLen < forbidden ? i * i % kVocab : kVocab));
  writer.add_document(ids);
  writer.finish();
}

std::string blend(const fs::path& dir, const char* weight_a, const char* weight_b) {
  return "--data.train=[{path=\"" + (dir / "a").string() + "\", weight=" + weight_a + "}, {path=\"" +
         (dir / "b").string() + "\", weight=" + weight_b + "}]";
}

// 10 steps of 4 samples give 36 of a and 4 of b; 6 more, with the weights turned round, 2 of a and 22 of b.
// As if they had been the weights from the beginning, b would go on at 36.
TEST(Sources, EachGoesOnFromItsOwnCursorWhenWeightsChange) {
  TempDir dir;
  write_samples(dir / "a", 100, 100);
  write_samples(dir / "b", 100, 30);
  const auto go = [&](const char* out, int64_t steps, const char* a, const char* b) {
    return dsv3(train(
        dir / out, {blend(dir.path(), a, b), "--checkpoint.every=100", "--checkpoint.resume=auto"}, steps));
  };
  for (const char* out : {"once", "twice"}) ASSERT_EQ(go(out, 10, "0.9", "0.1").code, 0);
  const Result once = go("once", 16, "0.1", "0.9");
  ASSERT_EQ(once.code, 0) << once.err;
  EXPECT_NE(once.err.find("warning: data.train: " + (dir / "a").string() + " goes on behind 36 samples"),
            std::string::npos)
      << once.err;
  EXPECT_NE(once.err.find("/b goes on behind 4 samples"), std::string::npos) << once.err;

  ASSERT_EQ(go("twice", 13, "0.1", "0.9").code, 0);
  const Result twice = go("twice", 16, "0.1", "0.9");
  ASSERT_EQ(twice.code, 0) << twice.err;
  EXPECT_EQ(twice.err.find("goes on behind"), std::string::npos) << twice.err;
  EXPECT_EQ(metrics_of(dir / "twice"), metrics_of(dir / "once"));
  EXPECT_EQ(read_file(dir / "twice/hf/model.safetensors"), read_file(dir / "once/hf/model.safetensors"));
}

void describe(const fs::path& file, const char* tokenizer, const std::string& hash) {
  write_file(file, Json({{"tokenizer", tokenizer}, {"tokenizer_hash", hash}}).dump());
}

TEST(Sources, OfTwoTokenizersAreRefusedBeforeARunBegins) {
  TempDir dir;
  for (const char* name : {"a", "b"}) write_samples(dir / name, 100, 100);
  describe(dir / "a.json", "one", "xxh3:1");
  describe(dir / "b.json", "two", "xxh3:2");
  const std::string both = blend(dir.path(), "0.5", "0.5");
  expect_failure(dsv3(train(dir / "run", {both})), ExitCode::content,
                 {(dir / "b.json").string() + ": tokenizer_hash: xxh3:2",
                  (dir / "a.json").string() + " has xxh3:1", "with one tokenizer"});
  expect_failure(dsv3({"config", "check", kRun, both}), ExitCode::content, {"b.json: tokenizer_hash"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  const std::vector<std::string> one = {"config", "check", kRun, "--data.train=" + (dir / "a").string()};
  std::vector<std::string> more = one;
  more.push_back("--data.valid=" + (dir / "b").string());
  expect_failure(dsv3(more), ExitCode::content, {"b.json: tokenizer_hash"});
  more.back() = "--data.tokenizer=byte";
  expect_failure(dsv3(more), ExitCode::content,
                 {"a.json: tokenizer_hash: xxh3:1, data.tokenizer (byte) has fnv"});
  EXPECT_EQ(dsv3(one).code, 0);
}

TEST(Sources, OfATokenizerThatTheRunDoesNotNameAreWorthAWarning) {
  TempDir dir;
  write_samples(dir / "a", 100, 100);
  describe(dir / "a.json", "V3/tokenizer.json", ByteTokenizer::hash());
  const std::string source = "--data.train=" + (dir / "a").string();
  const Result warned = dsv3(train(dir / "run", {source, "--nproc", "2"}, 1));
  ASSERT_EQ(warned.code, 0) << warned.err;
  const std::string line =
      "dsv3: warning: " + (dir / "a.json").string() + " names the tokenizer V3/tokenizer.json";
  EXPECT_EQ(count(warned.err, line), 1u) << warned.err;
  const Result named = dsv3(train(dir / "named", {source, "--data.tokenizer=byte"}, 1));
  ASSERT_EQ(named.code, 0) << named.err;
  EXPECT_EQ(named.err, "");
}

}  // namespace
}  // namespace dsv3::test
