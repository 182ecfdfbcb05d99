// Goldens are made by tools/peers/train_tokenizer.py --goldens with the library `tokenizers`.
#include "dsv3/data/tokenizer_trainer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "data/texts.h"
#include "data/tokenizer_case.h"
#include "dsv3/base/file.h"
#include "dsv3/data/bpe_tokenizer.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

fs::path golden(std::string_view name) {
  return fs::path(DSV3_SOURCE_DIR) / "tests/data/tokenizers/trained" / name;
}

class TrainTokenizer : public testing::Test {
 protected:
  TrainTokenizerOptions options(std::string_view text, int64_t vocab_size = 300) {
    return {
        .inputs = {test::write_file(dir_ / "text.txt", text)}, .out = dir_ / "out", .vocab_size = vocab_size};
  }
  void refuse(const TrainTokenizerOptions& options, ExitCode code,
              std::initializer_list<std::string_view> parts) {
    test::expect_error(code, parts, [&] { train_tokenizer(options); });
    EXPECT_FALSE(fs::exists(dir_ / "out"));
  }
  std::string written() { return read_text(dir_ / "out/tokenizer.json", 1 << 20); }
  test::TempDir dir_;
};

// What reading makes of a file, but for its name and hash.
Json meaning(const fs::path& path) {
  const TokenizerSpec spec = read_tokenizer_json(path);
  Json out;
  std::map<int32_t, std::string> vocab;
  for (size_t i = 0; i < spec.vocab.size(); ++i) vocab.emplace(spec.ids[i], spec.vocab[i]);
  for (const auto& [id, token] : vocab) out["vocab"][token] = id;
  for (size_t i = 0; i < spec.merges.size(); ++i) out["merges"].push_back(spec.merges[i]);
  for (const AddedToken& token : spec.added)
    out["added"].push_back({token.content, token.id, token.special, token.normalized, token.lstrip});
  for (const PreTokenizerStep& step : spec.steps)
    out["steps"].push_back({static_cast<int>(step.kind), step.pattern});
  return out;
}

TEST_F(TrainTokenizer, IsEqualToTokenizers) {
  for (const char* pattern : {"v3", "gpt2"}) {
    for (const int threads : {1, 2, 5}) {
      const TrainTokenizerSummary summary = train_tokenizer({.inputs = {golden("text.txt")},
                                                             .out = dir_ / "out",
                                                             .vocab_size = 400,
                                                             .count = {.threads = threads},
                                                             .pattern = pattern,
                                                             .special = {"<tool>"}});
      EXPECT_EQ(summary.file, dir_ / "out/tokenizer.json");
      EXPECT_EQ(meaning(summary.file).dump(), meaning(golden(fmt::format("{}.json", pattern))).dump());
      EXPECT_EQ(summary.vocab_size, 400);
      EXPECT_EQ(summary.merges, 140);
      EXPECT_EQ(summary.bytes, fs::file_size(golden("text.txt")));
    }
  }
}

TEST_F(TrainTokenizer, TheFileIsUsed) {
  auto all = options("the word and the word\n", 270);
  all.special = {"<tool>"};
  train_tokenizer(all);
  const auto tokenizer = open_tokenizer((dir_ / "out").string());
  EXPECT_EQ(tokenizer->eos(), 1);
  EXPECT_EQ(tokenizer->id_of("<｜begin▁of▁sentence｜>"), 0);
  EXPECT_EQ(tokenizer->id_of("<｜▁pad▁｜>"), 2);
  EXPECT_EQ(tokenizer->id_of("<tool>"), 3);
  EXPECT_EQ(tokenizer->id_of("!"), 4);
  EXPECT_GT(tokenizer->vocab_size(), 260);
  std::vector<int32_t> ids;
  const std::string text = "the word <tool>\x01 中";
  tokenizer->encode(text, true, ids);
  EXPECT_LT(ids.size(), text.size());
  EXPECT_EQ(tokenizer->decode(ids, false), text);
  EXPECT_EQ(tokenizer->decode(ids, true), "the word \x01 中");
}

TEST_F(TrainTokenizer, NamesOfTheSpecialTokens) {
  auto named = options("some text", 300);
  named.bos = "";
  named.eos = "<end>";
  named.pad = "";
  train_tokenizer(named);
  EXPECT_EQ(open_tokenizer((dir_ / "out").string())->eos(), 0);
  const Json config = read_json(dir_ / "out/tokenizer_config.json");
  EXPECT_EQ(config["eos_token"], "<end>");
  EXPECT_FALSE(config.contains("bos_token"));
  EXPECT_FALSE(config.contains("pad_token"));
}

TEST_F(TrainTokenizer, ASpecialTokenIsNotLearned) {
  auto shadowed = options("<a><a><a><a><a>", 300);
  shadowed.special = {"<a"};
  train_tokenizer(shadowed);
  const TokenizerSpec spec = read_tokenizer_json(dir_ / "out/tokenizer.json");
  for (size_t i = 0; i < spec.merges.size(); i += 2)
    EXPECT_NE(std::string(spec.merges[i]) + std::string(spec.merges[i + 1]), "<a");
  EXPECT_GT(spec.merges.size(), 0u);
}

TEST_F(TrainTokenizer, TheSmallestVocabularyHasNoMerges) {
  refuse(options("text text", 258), ExitCode::usage,
         {"--vocab-size: 258, expected 259 (256 bytes and 3 special tokens) to 524288"});
  const TrainTokenizerSummary summary = train_tokenizer(options("text text", 259));
  EXPECT_EQ(summary.vocab_size, 259);
  EXPECT_EQ(summary.merges, 0);
  EXPECT_EQ(open_tokenizer((dir_ / "out").string())->vocab_size(), 259);
}

TEST_F(TrainTokenizer, TheOutputIsReplacedOrKept) {
  train_tokenizer(options("first first", 270));
  const std::string first = written();
  test::write_file(dir_ / "bad.txt", "\xff");
  auto bad = options("first first", 270);
  bad.inputs.push_back(dir_ / "bad.txt");
  test::expect_input_error({"bad.txt: byte 0: is not UTF-8"}, [&] { train_tokenizer(bad); });
  EXPECT_EQ(written(), first);
  EXPECT_TRUE(fs::exists(dir_ / "out/tokenizer_config.json"));
  auto second = options("second second", 270);
  second.out = dir_ / "out/tokenizer.json";
  train_tokenizer(second);
  EXPECT_NE(written(), first);
}

TEST_F(TrainTokenizer, ReadsWhatPrepareReads) {
  fs::create_directories(dir_ / "in/sub");
  const std::string first = "the word and the word", second = "the word is the word\n";
  test::write_file(dir_ / "in/a.jsonl", Json({{"body", first}}).dump() + "\n7\n");
  test::write_file(dir_ / "in/sub/b.txt.zst", zstd(second));
  test::write_file(dir_ / "in/c.jsonl.gz", gzip(Json({{"body", second}}).dump()));
  test::write_file(dir_ / "in/c.md", "no match, no match, no match");
  auto all = options("", 270);
  all.inputs = {dir_ / "in"};
  all.glob = "*.[jt]*";
  all.count = {.text_key = "body", .max_bad = 1};
  const TrainTokenizerSummary summary = train_tokenizer(all);
  EXPECT_EQ(summary.bytes, first.size() + 2 * second.size());
  EXPECT_EQ(summary.bad_lines, 1);
  const std::string found = written();
  test::write_file(dir_ / "all.txt", first + "\n" + second + second);
  auto same = options("", 270);
  same.inputs = {dir_ / "all.txt"};
  train_tokenizer(same);
  EXPECT_EQ(found, written());
  all.count.max_bad = 0;
  test::expect_input_error({"a.jsonl:2: a number"}, [&] { train_tokenizer(all); });
}

TEST_F(TrainTokenizer, AnInputIsNeverWritten) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    auto bad = options("text text");
    bad.out = dir_.path();
    bad.inputs.push_back(test::write_file(dir_ / name, "an input"));
    bad.format = "text";
    test::expect_error(ExitCode::usage, {"--out: ", name, "is an input too"}, [&] { train_tokenizer(bad); });
    EXPECT_EQ(read_text(dir_ / name, 100), "an input");
    fs::remove(dir_ / name);
  }
}

TEST_F(TrainTokenizer, WrongOptions) {
  const auto with = [&](auto change) {
    auto changed = options("text");
    change(changed);
    return changed;
  };
  const ExitCode usage = ExitCode::usage;
  refuse(with([](auto& o) { o.inputs.clear(); }), usage, {"no input"});
  refuse(with([](auto& o) { o.inputs = {"none.txt"}; }), usage, {"none.txt"});
  test::write_file(dir_ / "a.gz", "text");
  refuse(with([&](auto& o) { o.inputs = {dir_ / "a.gz"}; }), usage, {"a.gz: is no .txt", "--format"});
  refuse(with([](auto& o) { o.format = "xml"; }), usage, {"--format", "xml"});
  refuse(with([](auto& o) { o.count.max_bad = -1; }), usage, {"--max-bad: -1"});
  refuse(with([](auto& o) { o.out = ""; }), usage, {"--out"});
  refuse(with([](auto& o) { o.out = "other.json"; }), usage, {"--out: other.json: expected a folder"});
  for (const int64_t size : {INT64_MIN, int64_t{-1}, int64_t{0}, int64_t{258}, int64_t{524289}, INT64_MAX})
    refuse(with([&](auto& o) { o.vocab_size = size; }), usage,
           {fmt::format("--vocab-size: {}, expected 259", size)});
  refuse(with([](auto& o) { o.min_frequency = 0; }), usage, {"--min-frequency: 0"});
  refuse(with([](auto& o) { o.count.threads = 0; }), usage, {"--threads: 0"});
  refuse(with([](auto& o) { o.pattern = "v4"; }), usage, {"--pattern: v4 (v3 or gpt2)"});
  refuse(with([](auto& o) { o.eos = ""; }), usage, {"--eos: is empty"});
  refuse(with([](auto& o) { o.pad = o.eos; }), usage, {"--pad: ", "is a special token already"});
  refuse(with([](auto& o) { o.special = {""}; }), usage, {"--special: an empty token"});
  refuse(with([](auto& o) {
           o.special = {"<a>", "<a>"};
         }),
         usage, {"--special: \"<a>\" is a special token already"});
  refuse(with([](auto& o) { o.special = {"\xff"}; }), usage, {"is not UTF-8"});
  refuse(with([](auto& o) { o.special = {std::string(257, 'a')}; }), usage, {"has more than 256 bytes"});
  for (const char* letter : {"a", "Ġ"})
    refuse(with([&](auto& o) { o.special = {letter}; }), usage, {"is how a single byte is spelled"});
  refuse(options(""), ExitCode::content, {"text.txt: no text in 1 files"});
  refuse(options("a\xc3"), ExitCode::content, {"text.txt: byte 1: is not UTF-8"});
}

}  // namespace
}  // namespace dsv3
