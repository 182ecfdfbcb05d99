// dsv3 data ls: token files shown and decoded; the hostile rows 73 to 78 from the command line.
#include "cli/run.h"
#include "data/tokenizer_case.h"
#include "dsv3/base/json.h"

namespace dsv3::test {
namespace {

template <typename T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

class DataCommand : public testing::Test {
 protected:
  DataCommand() {
    write_file(dir_ / "a.jsonl",
               "{\"text\": \"one\"}\n{\"text\": \"z\\u00e9\\ttwo\\u001b[1m\\n\"}\n{\"text\": \"last\"}");
    const Result result = dsv3({"prepare", "a.jsonl", "--out", "text"}, {.cwd = dir_.path()});
    EXPECT_EQ(result.code, 0) << result.err;
  }
  Result ls(std::vector<std::string> args) {
    args.insert(args.begin(), {"data", "ls"});
    return dsv3(args, {.cwd = dir_.path()});
  }
  // text.idx with the bytes at an offset replaced.
  void corrupt(size_t offset, std::string_view bytes) {
    std::string idx = read_file(dir_ / "text.idx");
    ASSERT_LE(offset + bytes.size(), idx.size());
    write_file(dir_ / "bad.idx", idx.replace(offset, bytes.size(), bytes));
    write_file(dir_ / "bad.bin", read_file(dir_ / "text.bin"));
  }
  TempDir dir_;
};

TEST_F(DataCommand, ShowsWhatIsInTheFiles) {
  const Result result = ls({"text"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* part : {"documents      3", "tokens         22", "dtype          uint16",
                           "tokenizer      byte", "largest_id     257"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << " is not in:\n" << result.out;
  const Json json = parse_json(ls({"text", "--json"}).out, "stdout");
  EXPECT_EQ(json["documents"], 3);
  EXPECT_EQ(json["eos_id"], 257);
  // As Megatron leaves it: no .json.
  std::filesystem::remove(dir_ / "text.json");
  EXPECT_EQ(ls({"text"}).code, 0);
}

TEST_F(DataCommand, DecodesARange) {
  const auto decoded = [&](const std::string& range) {
    const std::string out = ls({"text", "--range", range}).out;
    const size_t begin = out.find("--- ");
    return begin == out.npos ? "" : out.substr(begin);
  };
  EXPECT_EQ(decoded("0:1"), "--- document 0: 4 tokens\none\n");
  // What a terminal would obey is shown, not sent.
  EXPECT_EQ(decoded("1:3"),
            "--- document 1: 13 tokens\nz\u00e9\ttwo\\x1b[1m\n\n--- document 2: 5 tokens\nlast\n");
  EXPECT_EQ(decoded("2:"), "--- document 2: 5 tokens\nlast\n");
  EXPECT_EQ(decoded("1:1"), "");
  const std::string lines = ls({"text", "--range", ":2", "--json"}).out;
  const size_t second = lines.find('\n', lines.find('\n') + 1) + 1;
  EXPECT_EQ(parse_json(std::string_view(lines).substr(second), "stdout").dump(),
            Json({{"document", 1}, {"tokens", 13}, {"text", "z\u00e9\ttwo\x1b[1m\n"}}).dump());
}

// However the tokenizer was named: PREFIX.json has the same bytes, and it is found from any folder.
TEST_F(DataCommand, FindsTheTokenizerFromAnotherFolder) {
  Json json = small_tokenizer();
  for (const char* folder : {"tokens", "cache", "elsewhere"})
    std::filesystem::create_directory(dir_ / folder);
  write_file(dir_ / "cache/blob", json.dump());
  std::filesystem::create_symlink(dir_ / "cache/blob", dir_ / "tokens/tokenizer.json");
  std::filesystem::create_directory_symlink(dir_ / "tokens", dir_ / "link");
  std::string first;
  for (const std::string name : {"tokens", "tokens/tokenizer.json", "./elsewhere/../tokens", "link"}) {
    const Result made = dsv3({"prepare", "a.jsonl", "--out", "bpe", "--tokenizer", name, "--eos", "<|eos|>"},
                             {.cwd = dir_.path()});
    ASSERT_EQ(made.code, 0) << made.err;
    if (first.empty()) first = read_file(dir_ / "bpe.json");
    EXPECT_EQ(read_file(dir_ / "bpe.json"), first) << name;
    const Result shown = dsv3({"data", "ls", "../bpe", "--range", "0:1"}, {.cwd = dir_ / "elsewhere"});
    EXPECT_EQ(shown.code, 0) << shown.err;
    EXPECT_NE(shown.out.find("tokens\none\n"), shown.out.npos) << shown.out;
  }
  EXPECT_EQ(parse_json(first, "bpe.json")["tokenizer"],
            std::filesystem::canonical(dir_ / "tokens").string() + "/tokenizer.json");
}

TEST_F(DataCommand, DecodesTokensOfADocument) {
  const auto decoded = [&](const std::string& tokens) {
    const std::string out = ls({"text", "--range", "1:2", "--tokens", tokens}).out;
    return out.substr(std::min(out.find("--- "), out.size()));
  };
  EXPECT_EQ(decoded("4:7"), "--- document 1: 4:7 of 13 tokens\ntwo\n");
  EXPECT_EQ(decoded(":2"), "--- document 1: 0:2 of 13 tokens\nz\uFFFD\n") << "half a character";
  EXPECT_EQ(decoded("11:"), "--- document 1: 11:13 of 13 tokens\n\n\n") << "the newline; eos is not shown";
  EXPECT_EQ(decoded("13:13"), "--- document 1: 13:13 of 13 tokens\n\n");
  const std::string lines = ls({"text", "--range", "1:2", "--tokens", "4:7", "--json"}).out;
  EXPECT_EQ(parse_json(std::string_view(lines).substr(lines.find('\n') + 1), "stdout").dump(),
            Json({{"document", 1}, {"tokens", 13}, {"begin", 4}, {"end", 7}, {"text", "two"}}).dump());
  for (const char* tokens : {"3", "2:1", "0:14", "-1:2", "a:b"})
    expect_failure(ls({"text", "--range", "1:2", "--tokens=" + std::string(tokens)}), ExitCode::usage,
                   {"--tokens", tokens, "<= 13 tokens"});
  expect_failure(ls({"text", "--range", "0:2", "--tokens", "0:1"}), ExitCode::usage,
                 {"--tokens", "one document"});
  expect_failure(ls({"text", "--tokens", "0:1"}), ExitCode::usage, {"--tokens", "--range N:N+1"});
}

TEST_F(DataCommand, ControlsOfC1AreShownNotSent) {
  write_file(dir_ / "c1.txt",
             "a\xc2\x9b"
             "31mé\u00a0");
  EXPECT_EQ(dsv3({"prepare", "c1.txt", "--out", "c1"}, {.cwd = dir_.path()}).code, 0);
  const std::string out = ls({"c1", "--range", "0:1"}).out;
  EXPECT_NE(out.find("a\\xc2\\x9b31mé\u00a0\n"), out.npos) << out;
}

TEST_F(DataCommand, RefusesArguments) {
  expect_failure(ls({"none"}), ExitCode::usage, {"none", "no token file"});
  expect_failure(ls({"text.bin"}), ExitCode::usage, {"without .bin or .idx"});
  for (const char* range : {"1", "2:1", "0:4", "-1:2", "a:b", "0:99999999999999999999"})
    expect_failure(ls({"text", "--range=" + std::string(range)}), ExitCode::usage, {"--range", range});
  expect_failure(ls({"text", "--range", "0:1", "--tokenizer", "none"}), ExitCode::usage, {"none"});
  std::string json = read_file(dir_ / "text.json");
  json.replace(json.find("fnv1a64:"), 10, "fnv1a64:00");
  write_file(dir_ / "text.json", json);
  expect_failure(ls({"text", "--range", "0:1"}), ExitCode::content,
                 {"text.json", "tokenizer_hash", "another"});
  write_file(dir_ / "text.json", "[]");
  expect_failure(ls({"text"}), ExitCode::content, {"text.json", "no JSON object"});
  write_file(dir_ / "text.json", "{\"tokenizer\": 7}");
  expect_failure(ls({"text"}), ExitCode::content, {"text.json: tokenizer", "no string"});
  std::filesystem::remove(dir_ / "text.json");
  expect_failure(ls({"text", "--range", "0:1"}), ExitCode::usage, {"--tokenizer"});
  EXPECT_EQ(ls({"text", "--range", "0:1", "--tokenizer", "byte"}).code, 0);
}

TEST_F(DataCommand, Rows73To76And78BrokenIndexes) {
  const auto refused = [&](size_t offset, std::string_view bytes,
                           std::initializer_list<std::string_view> parts) {
    corrupt(offset, bytes);
    expect_failure(ls({"bad"}), ExitCode::content, parts);
    expect_failure(ls({"bad", "--range", "0:1", "--tokenizer", "byte"}), ExitCode::content, parts);
  };
  refused(0, "X", {"bad.idx: magic"});
  refused(9, "\x02", {"bad.idx: version"});
  refused(17, "\x07", {"bad.idx: dtype"});
  const std::string huge(8, '\x7f');
  refused(18, huge, {"bad.idx: counts"});
  refused(26, huge, {"bad.idx: counts"});
  refused(34, "\xff\xff\xff\xff", {"bad.idx: lengths[0]"});
  refused(46, "\x02", {"bad.idx: pointers[0]"});
  refused(70, "\x01", {"bad.idx: document_indices[0]"});
  refused(78, "\x09", {"bad.idx: document_indices[1]"});
  corrupt(0, "M");
  write_file(dir_ / "bad.bin", read_file(dir_ / "text.bin") + "x");
  expect_failure(ls({"bad"}), ExitCode::content, {"bad.bin: size", "no multiple"});
  std::filesystem::remove(dir_ / "bad.bin");
  expect_failure(ls({"bad"}), ExitCode::content, {"bad.bin", "no such file"});

  std::string none = read_file(dir_ / "text.idx").substr(0, 18);
  for (const uint64_t count : {0, 1, 0}) put(none, count);  // sequences, entries, the one index
  write_file(dir_ / "bad.idx", none);
  write_file(dir_ / "bad.bin", "");
  expect_failure(ls({"bad"}), ExitCode::content, {"bad.idx: documents", "no document"});
}

TEST_F(DataCommand, Row77TokenBeyondTheVocabulary) {
  std::string bin = read_file(dir_ / "text.bin");
  bin[2] = '\x03';
  bin[3] = '\x01';  // 259
  write_file(dir_ / "text.bin", bin);
  expect_failure(ls({"text", "--range", "0:1", "--json"}), ExitCode::content,
                 {"text.bin: token 1: id 259, expected 0 to 258"});
}

}  // namespace
}  // namespace dsv3::test
