#include "dsv3/data/prepare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/texts.h"
#include "dsv3/base/json.h"

namespace dsv3 {
namespace {

TEST(Prepare, FilesAndSortedFoldersBecomeDocuments) {
  TempDir dir;
  std::filesystem::create_directories(dir / "in/sub");
  write_file(dir / "in/b.txt", "second");
  write_file(dir / "in/a.txt", "first\n");
  write_file(dir / "in/sub/c.txt", "\xff");
  write_file(dir / "in/figure.png", "no text");
  write_file(dir / "in/empty.txt", "");
  write_file(dir / "z.txt", "zero");
  const auto summary = prepare({.inputs = {dir / "z.txt", dir / "in"}, .out = dir / "out/p"});
  EXPECT_EQ(text_of(dir / "out/p"), "zero|first\n|second|\xff|");
  EXPECT_EQ(summary.train.prefix, dir / "out/p");
  EXPECT_EQ(summary.train.documents, 4);
  EXPECT_EQ(summary.train.tokens, 21);
  EXPECT_EQ(summary.train.bytes, 17);
  EXPECT_EQ(summary.train.longest_document, 7);
  EXPECT_EQ(summary.skipped_files, 1);
  EXPECT_FALSE(summary.valid);
  EXPECT_EQ(IndexedDataset(dir / "out/p").document_begin(2), 12);

  const Json json = read_json(dir / "out/p.json");
  EXPECT_EQ(json.dump(), Json({{"tokenizer", "byte"},
                               {"tokenizer_hash", ByteTokenizer::hash()},
                               {"vocab_size", 259},
                               {"eos_id", 257},
                               {"bytes", 17},
                               {"documents", 4},
                               {"tokens", 21},
                               {"largest_id", 257}})
                             .dump());
}

TEST(Prepare, WithATokenizerOfAFile) {
  TempDir dir;
  const auto tokenizer = std::filesystem::path(DSV3_SOURCE_DIR) / "tests/data/tokenizers/v3/tokenizer.json";
  const std::string text = "The word, and the word\u4e2d\u6587.";
  write_file(dir / "a.txt", text);
  // The last tenth begins inside of a character: the cut moves to where it begins.
  prepare({.inputs = {dir / "a.txt"},
           .out = dir / "p",
           .tokenizer = tokenizer.string(),
           .eos = "<|eos|>",
           .valid_fraction = 0.1});
  const auto opened = open_tokenizer(tokenizer.string());
  const auto read = [&](const char* name) {
    IndexedDataset set(dir / name);
    std::vector<int64_t> ids(set.num_tokens());
    set.read(0, ids);
    return opened->decode(std::vector<int32_t>(ids.begin(), ids.end()), false);
  };
  EXPECT_EQ(read("p_train"), "The word, and the word\u4e2d<|eos|>");
  EXPECT_EQ(read("p_valid"), "\u6587.<|eos|>");
  const Json json = read_json(dir / "p_train.json");
  EXPECT_EQ(json["tokenizer"], std::filesystem::canonical(tokenizer).string());
  EXPECT_EQ(json["tokenizer_hash"], opened->hash());
  EXPECT_EQ(json["vocab_size"], opened->vocab_size());
  EXPECT_EQ(json["eos_id"], *opened->id_of("<|eos|>"));
}

TEST(Prepare, HoldsOutTheTailOfEachDocument) {
  TempDir dir;
  write_file(dir / "a.txt", "0123456789");
  write_file(dir / "b.txt", "abcd");
  write_file(dir / "c.txt", "x");  // too short to hold anything out
  const auto summary = prepare(
      {.inputs = {dir / "a.txt", dir / "b.txt", dir / "c.txt"}, .out = dir / "p", .valid_fraction = 0.25});
  EXPECT_EQ(text_of(dir / "p_train"), "01234567|abc|x|");
  EXPECT_EQ(text_of(dir / "p_valid"), "89|d|");
  EXPECT_EQ(summary.train.bytes, 12);
  ASSERT_TRUE(summary.valid);
  EXPECT_EQ(summary.valid->prefix, dir / "p_valid");
  EXPECT_EQ(summary.valid->documents, 2);
  EXPECT_EQ(read_json(dir / "p_valid.json")["bytes"], 3);
  EXPECT_FALSE(std::filesystem::exists(dir / "p.idx"));
}

TEST(Prepare, FilesLargerThanAPieceComeBackWhole) {
  TempDir dir;
  std::string text;
  for (int i = 0; text.size() < 2'500'000; ++i) text += std::to_string(i) + " ";
  write_file(dir / "a.txt", text);
  prepare({.inputs = {dir / "a.txt"}, .out = dir / "p", .valid_fraction = 0.1});
  EXPECT_TRUE(text_of(dir / "p_train").substr(0, text.size() * 9 / 10) + text_of(dir / "p_valid") ==
              text.substr(0, text.size() * 9 / 10) + text.substr(text.size() - text.size() / 10) + "|");
}

TEST(Prepare, ReplacesOlderFilesAndLeavesNothingElse) {
  TempDir dir;
  for (const char* text : {"a longer text than the other", "short"}) {
    write_file(dir / "a.txt", text);
    prepare({.inputs = {dir / "a.txt"}, .out = dir / "p"});
    EXPECT_EQ(text_of(dir / "p"), std::string(text) + "|");
  }
  EXPECT_EQ(names(dir), (std::vector<std::string>{"a.txt", "p.bin", "p.idx", "p.json"}));
}

class PrepareRefuses : public testing::Test {
 protected:
  PrepareRefuses() {
    write_file(dir_ / "a.txt", "text");
    before_ = names(dir_);
  }
  void expect(ExitCode code, std::initializer_list<std::string_view> parts, PrepareOptions options) {
    before_ = names(dir_);
    if (options.out.empty()) options.out = dir_ / "p";
    expect_error(code, parts, [&] { prepare(options); });
    EXPECT_EQ(names(dir_), before_) << "nothing is written";
  }
  TempDir dir_;
  std::vector<std::string> before_;
};

TEST_F(PrepareRefuses, InputsThatAreNoText) {
  for (const char* name : {"e.pdf", "e.gz", "e.tar.zst"}) {
    write_file(dir_ / name, "x");
    expect(ExitCode::usage, {name, "is no .txt, .md or .jsonl", "--format"}, {.inputs = {dir_ / name}});
  }
  expect(ExitCode::usage, {"f.txt", "no such"}, {.inputs = {dir_ / "f.txt"}});
  expect(ExitCode::usage, {"no input"}, {});
}

TEST_F(PrepareRefuses, NoText) {
  write_file(dir_ / "b.txt", "");
  std::filesystem::create_directories(dir_ / "none");
  expect(ExitCode::content, {"b.txt", "no text in 1 files"}, {.inputs = {dir_ / "b.txt"}});
  expect(ExitCode::content, {"none", "no text file"}, {.inputs = {dir_ / "none"}});
  expect(ExitCode::content, {"a.txt", "hold out"}, {.inputs = {dir_ / "a.txt"}, .valid_fraction = 0.1});
}

TEST_F(PrepareRefuses, Row82OutputThatIsAnInput) {
  expect(ExitCode::usage, {"--out", "a.txt is an input too"},
         {.inputs = {dir_ / "a.txt"}, .out = dir_ / "a.txt"});
  expect(ExitCode::usage, {"--out"}, {.inputs = {dir_ / "a.txt"}, .out = dir_ / "./none/../a.txt"});
  expect(ExitCode::usage, {"--out"}, {.inputs = {dir_.path()}, .out = dir_.path()});
  std::filesystem::create_symlink(dir_ / "a.txt", dir_ / "p.bin");
  expect(ExitCode::usage, {"--out", "p.bin"}, {.inputs = {dir_ / "a.txt"}});
}

TEST_F(PrepareRefuses, OptionsWithoutMeaning) {
  expect(ExitCode::usage, {"--tokenizer", "bpe.json", "byte"},
         {.inputs = {dir_ / "a.txt"}, .tokenizer = "bpe.json"});
  const auto golden = std::filesystem::path(DSV3_SOURCE_DIR) / "tests/data/tokenizers/v3";
  expect(ExitCode::usage, {"--eos", "does not say which token ends a document"},
         {.inputs = {dir_ / "a.txt"}, .tokenizer = golden.string()});
  expect(ExitCode::usage, {"--eos: none: no token of"},
         {.inputs = {dir_ / "a.txt"}, .tokenizer = golden.string(), .eos = "none"});
  write_file(dir_ / "b.txt", "ab\xff");
  expect(ExitCode::content, {"b.txt: byte 2: is not UTF-8"},
         {.inputs = {dir_ / "b.txt"}, .tokenizer = golden.string(), .eos = "<|eos|>"});
  for (double fraction : {-0.1, 1.0, std::nan("")}) {
    expect(ExitCode::usage, {"--valid-fraction"}, {.inputs = {dir_ / "a.txt"}, .valid_fraction = fraction});
  }
}

TEST_F(PrepareRefuses, FilesTooLongForADocumentBeforeReadingThem) {
  write_file(dir_ / "b.txt", "");
  std::filesystem::resize_file(dir_ / "b.txt", 0x7fffffff);  // sparse
  expect(ExitCode::content, {"b.txt", "2147483647 bytes", "split"}, {.inputs = {dir_ / "b.txt"}});
}

TEST_F(PrepareRefuses, KeepsOlderFilesWhenItFails) {
  prepare({.inputs = {dir_ / "a.txt"}, .out = dir_ / "p"});
  const std::string json = read_file(dir_ / "p.json");
  write_file(dir_ / "b.txt", "");
  expect(ExitCode::content, {"no text"}, {.inputs = {dir_ / "b.txt"}});
  EXPECT_EQ(text_of(dir_ / "p"), "text|");
  EXPECT_EQ(read_file(dir_ / "p.json"), json);
}

}  // namespace
}  // namespace dsv3
