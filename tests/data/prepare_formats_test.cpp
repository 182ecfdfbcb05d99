// prepare() of .md, .jsonl, lines, compressed files and folders with a glob; by several threads.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/texts.h"
#include "dsv3/data/prepare.h"
#include "dsv3/data/text_job.h"

namespace dsv3 {
namespace {

constexpr struct {
  std::string (*pack)(std::string_view);
  const char* ending;
} kPackers[] = {{gzip, "gz"}, {zstd, "zst"}};

class PrepareFormats : public testing::Test {
 protected:
  // The documents of one input, '|' behind each.
  std::string text(const char* name, std::string_view bytes, PrepareOptions options = {}) {
    write_file(dir_ / name, bytes);
    options.inputs = {dir_ / name};
    options.out = dir_ / "p";
    summary_ = prepare(options);
    return text_of(dir_ / "p");
  }
  void refuse(const char* name, std::string_view bytes, std::initializer_list<std::string_view> parts,
              PrepareOptions options = {}) {
    write_file(dir_ / name, bytes);
    options.inputs = {dir_ / name};
    options.out = dir_ / "p";
    const auto before = names(dir_);
    expect_error(ExitCode::content, parts, [&] { prepare(options); });
    EXPECT_EQ(names(dir_), before) << "nothing is written";
  }
  TempDir dir_;
  PrepareSummary summary_;
};

constexpr const char* kLines =
    "{\"text\": \"one\"}\n\n  \r\n{\"id\": [1, {\"text\": 2}], \"text\": \"t\\u00e9\\nw\\\"o\", \"n\": "
    "null}\r\n"
    "{\"text\":\"\"}\n{\"text\":\"last\"}";

TEST_F(PrepareFormats, AnObjectALine) {
  EXPECT_EQ(text("a.jsonl", kLines), "one|t\u00e9\nw\"o|last|");
  EXPECT_EQ(summary_.train.documents, 3);
  EXPECT_EQ(summary_.train.bytes, 3 + 7 + 4);
  EXPECT_EQ(summary_.train.longest_document, 8);
  EXPECT_EQ(summary_.empty_documents, 1);
  EXPECT_EQ(summary_.bad_lines, 0);
  EXPECT_EQ(text("a.jsonl", "{\"text\": 1, \"body\": \"b\"}\n", {.text_key = "body"}), "b|");
}

TEST_F(PrepareFormats, ADocumentALine) {
  EXPECT_EQ(text("a.txt", "one\n\ntwo \r\n \nthree", {.format = "lines"}), "one|two |three|");
  EXPECT_EQ(text("a.md", "one\n\ntwo"), "one\n\ntwo|");
  EXPECT_EQ(text("a.log", "{\"text\":\"x\"}", {.format = "jsonl"}), "x|");
}

TEST_F(PrepareFormats, CompressedInSeveralMembers) {
  for (const auto& [pack, ending] : kPackers) {
    const std::string jsonl = std::string("a.jsonl.") + ending, txt = std::string("a.txt.") + ending;
    const std::string_view lines = kLines;
    EXPECT_EQ(text(jsonl.c_str(), pack(lines.substr(0, 20)) + pack("") + pack(lines.substr(20))),
              "one|t\u00e9\nw\"o|last|");
    std::string large;
    for (int i = 0; large.size() < 1'000'000; ++i) large += std::to_string(i * 7919 % 100003) + " ";
    EXPECT_EQ(text(txt.c_str(), pack(large)), large + "|");
    EXPECT_EQ(text(txt.c_str(), pack("0123456789"), {.valid_fraction = 0}), "0123456789|");
    prepare({.inputs = {dir_ / txt}, .out = dir_ / "s", .valid_fraction = 0.3});
    EXPECT_EQ(text_of(dir_ / "s_train") + text_of(dir_ / "s_valid"), "0123456|789|");
  }
}

TEST_F(PrepareFormats, HoldsOutTheTailOfEachObject) {
  write_file(dir_ / "a.jsonl", "{\"text\":\"0123456789\"}\n{\"text\":\"abcd\"}\n{\"text\":\"x\"}\n");
  prepare({.inputs = {dir_ / "a.jsonl"}, .out = dir_ / "p", .valid_fraction = 0.25});
  EXPECT_EQ(text_of(dir_ / "p_train"), "01234567|abc|x|");
  EXPECT_EQ(text_of(dir_ / "p_valid"), "89|d|");
}

TEST_F(PrepareFormats, FoldersByNameOrGlob) {
  std::filesystem::create_directories(dir_ / "in/en");
  write_file(dir_ / "in/b.md", "b");
  write_file(dir_ / "in/en/c.jsonl.gz", gzip("{\"text\":\"c\"}"));
  write_file(dir_ / "in/en/d.txt", "d\nD");
  write_file(dir_ / "in/e.tar.gz", "no text");
  const auto take = [&](const char* glob, const char* format = "auto") {
    prepare({.inputs = {dir_ / "in"}, .format = format, .glob = glob, .out = dir_ / "p"});
    return text_of(dir_ / "p");
  };
  EXPECT_EQ(take(""), "b|c|d\nD|");
  EXPECT_EQ(take("*.md"), "b|");
  EXPECT_EQ(take("en/*"), "c|d\nD|");
  EXPECT_EQ(take("*.txt", "lines"), "d|D|");
  expect_error(ExitCode::usage, {"e.tar.gz", "--format"}, [&] { take("*.gz"); });
  expect_error(ExitCode::content, {"in", "no text file"}, [&] { take("*.rst"); });
  expect_error(ExitCode::usage, {"--format", "'json'"}, [&] { take("", "json"); });
}

TEST_F(PrepareFormats, BadLinesAreNamedCountedAndSkipped) {
  const std::string deep(2000, '[');
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"{\"text\": \"a\"", "no JSON"},
      {"{\"text\": \"a\"} x", "no JSON"},
      {"{\"text\": \"\\ud800\"}", "no JSON"},
      {"{\"text\": \"\xff\"}", "no JSON"},
      {"{\"text\": \"a\", \"n\": 01}", "no JSON"},
      {"{\"a\": " + deep, "no JSON"},
      {"[\"text\"]", "an array, expected an object"},
      {"7", "a number, expected an object"},
      {"{\"Text\": \"a\"}", "no key 'text'"},
      {"{\"text\": null}", "'text' is null, expected a string"},
      {"{\"text\": \"a\", \"text\": \"b\"}", "two keys 'text'"},
      {std::string(kMaxLineBytes + 1, '7'), "a line of more than 16777216 bytes"},
  };
  std::string all = "{\"text\":\"first\"}\n";
  std::vector<std::string> said;
  for (const auto& [line, why] : bad) {
    refuse("a.jsonl", "{\"text\":\"first\"}\n" + line + "\n", {"a.jsonl:2: " + why, "--max-bad"});
    all += line + "\n";
  }
  all += "{\"text\":\"end\"}";
  PrepareOptions options{.max_bad = static_cast<int64_t>(bad.size())};
  options.on_bad_line = [&](const std::string& line) { said.push_back(line); };
  EXPECT_EQ(text("a.jsonl", all, options), "first|end|");
  EXPECT_EQ(summary_.bad_lines, options.max_bad);
  ASSERT_EQ(said.size(), bad.size());
  for (size_t i = 0; i < bad.size(); ++i)
    EXPECT_NE(said[i].find(fmt::format("a.jsonl:{}: {}", i + 2, bad[i].second)), said[i].npos) << said[i];
  write_file(dir_ / "a.jsonl", all);
  EXPECT_THROW(prepare({.inputs = {dir_ / "a.jsonl"}, .max_bad = 11, .out = dir_ / "q"}), InputError);
}

TEST_F(PrepareFormats, JsonThatOtherProgramsWrite) {
  // A byte order mark; integers and fractions of any length; a number within a string stays whole.
  EXPECT_EQ(text("a.jsonl",
                 "\xEF\xBB\xBF{\"text\":\"a\"}\r\n"
                 "{\"id\":-123456789012345678901234567890,\"text\":\"\\\"12345678901234567890\"}\n"
                 "{\"x\":0.1234567890123456789012e5,\"text\":\"\\ud83d\\ude00\"}\n"),
            "a|\"12345678901234567890|\U0001F600|");
  EXPECT_EQ(text("a.jsonl", "{\"\": \"e\", \"text\": {\"\": 1}}", {.text_key = ""}), "e|");
  refuse("a.jsonl", "{\"text\":\"a\"}\n\xEF\xBB\xBF{\"text\":\"a\"}", {"a.jsonl:2: no JSON"});
  refuse("a.jsonl", "{\"text\":\"a\", \"n\": 00000000000000000000001}", {"a.jsonl:1: no JSON"});
}

// The error of the text that comes first, though the damage behind it is read before it is encoded.
TEST_F(PrepareFormats, TheFirstErrorForAnyNumberOfThreads) {
  std::string lines = "{\"text\": 1}\n";
  for (int i = 0; i < 60'000; ++i) lines += "{\"text\": \"" + std::to_string(i * 7919) + "\"}\n";
  const std::string whole = gzip(lines), cut = whole.substr(0, whole.size() - 100);
  for (const int threads : {1, 4}) {
    PrepareOptions options{.max_bad = 0};
    options.threads = threads;
    refuse("a.jsonl.gz", cut, {"a.jsonl.gz:1: 'text' is a number"}, options);
    options.max_bad = 1;
    refuse("a.jsonl.gz", cut, {"a.jsonl.gz: compressed byte", "cut off"}, options);
  }
}

TEST_F(PrepareFormats, ALineWithoutAnEndIsRefusedEarly) {
  write_file(dir_ / "a.jsonl", "{\"text\":\"x\"}\n");
  std::filesystem::resize_file(dir_ / "a.jsonl", uint64_t{1} << 40);  // sparse
  expect_error(ExitCode::content, {"a.jsonl:2: a line of more than"},
               [&] { prepare({.inputs = {dir_ / "a.jsonl"}, .out = dir_ / "p"}); });
}

TEST_F(PrepareFormats, DamagedCompressedFiles) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += std::to_string(i * 7919 % 100003) + " ";
  for (const auto& [pack, ending] : kPackers) {
    const std::string name = std::string("a.txt.") + ending, good = pack(text);
    for (const size_t size : {size_t{1}, size_t{9}, good.size() / 2, good.size() - 1})
      refuse(name.c_str(), good.substr(0, size), {name, "compressed byte", "cut off"});
    for (const size_t at : {size_t{0}, good.size() / 2, good.size() - 1, good.size() - 4}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 0x55);
      refuse(name.c_str(), bad, {name, "damaged"});
    }
    refuse(name.c_str(), good + "behind", {name, "compressed byte"});
  }
}

TEST_F(PrepareFormats, Row66Bombs) {
  const std::string zeros(68 << 20, '\0');
  const std::string packed = gzip(zeros), packed_zstd = zstd(zeros);
  refuse("a.txt.gz", packed, {"a.txt.gz", "as no text does"});
  refuse("a.txt.zst", packed_zstd, {"a.txt.zst", "as no text does"});
  refuse("a.jsonl.gz", packed, {"a.jsonl.gz:1: a line of more than"});
}

TEST_F(PrepareFormats, DocumentsTooLongToHoldInMemory) {
  const std::string tokenizer = std::string(DSV3_SOURCE_DIR) + "/tests/data/tokenizers/v3/tokenizer.json";
  write_file(dir_ / "a.txt", "");
  std::filesystem::resize_file(dir_ / "a.txt", kMaxWholeDocumentBytes + 1);
  expect_error(ExitCode::content, {"a.txt: size: 67108865 bytes, expected at most 67108864", "split"}, [&] {
    prepare({.inputs = {dir_ / "a.txt"}, .out = dir_ / "p", .tokenizer = tokenizer, .eos = "<|eos|>"});
  });
}

// Documents of all kinds and sizes; a job's end falls everywhere.
TEST_F(PrepareFormats, TheSameBytesForAnyNumberOfThreads) {
  const std::string tokenizer = std::string(DSV3_SOURCE_DIR) + "/tests/data/tokenizers/v3/tokenizer.json";
  uint64_t random = 1;
  const auto next = [&] { return (random = random * 6364136223846793005u + 1442695040888963407u) >> 33; };
  std::string lines, document;
  for (int i = 0; i < 4000; ++i) {
    std::string words;
    for (uint64_t n = next() % (i % 100 == 0 ? 4000 : 60); n > 0; --n)
      words += std::string(next() % 9, static_cast<char>('a' + next() % 26)) + (n % 7 ? " " : "\u00e9\u4e2d");
    lines += i % 500 == 7 ? "{]\n" : fmt::format("{{\"text\": \"{}\"}}\n", words);
    document += words + "\n";
  }
  write_file(dir_ / "a.jsonl.zst", zstd(lines));
  write_file(dir_ / "b.txt", document);
  write_file(dir_ / "c.md", "short");
  for (const std::string& name : {std::string("byte"), tokenizer}) {
    std::vector<std::string> first;
    for (const int threads : {1, 2, 4}) {
      std::string said;
      PrepareOptions options{.inputs = {dir_ / "a.jsonl.zst", dir_ / "b.txt", dir_ / "c.md"}, .max_bad = 8};
      options.on_bad_line = [&](const std::string& line) { said += line + "\n"; };
      options.threads = threads;
      options.out = dir_ / "p";
      options.tokenizer = name;
      options.eos = name == "byte" ? "" : "<|eos|>";
      options.valid_fraction = 0.1;
      prepare(options);
      std::vector<std::string> files = {said};
      for (const char* file : {"p_train.bin", "p_train.idx", "p_train.json", "p_valid.bin", "p_valid.idx"})
        files.push_back(read_file(dir_ / file));
      if (first.empty()) first = files;
      EXPECT_TRUE(files == first) << threads << " threads, " << name;
      EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 8);
    }
  }
}

}  // namespace
}  // namespace dsv3
