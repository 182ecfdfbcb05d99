// Rows 45 to 50 of the hostile inputs from the command line: what a tokenizer.json may not do to a program.
#include "cli/run.h"
#include "data/tokenizer_case.h"

namespace dsv3::test {
namespace {

class HostileTokenizer : public testing::Test {
 protected:
  HostileTokenizer() { write_file(dir_ / "text", "hello hell\n"); }

  Result encode() {
    return dsv3({"tokenizer", "encode", "--tokenizer", dir_ / "tokenizer.json"}, {.in_from = dir_ / "text"});
  }
  // One line that names file and field, in under a second of the processor and 64 MB more than a good file
  // takes.
  void refuse_text(std::string_view json, std::initializer_list<std::string_view> parts) {
    const Result good = encode_well();
    write_file(dir_ / "tokenizer.json", json);
    expect_refused(good, parts);
  }
  Result encode_well() {
    write_file(dir_ / "tokenizer.json", small_tokenizer().dump());
    Result good = encode();
    EXPECT_EQ(good.code, 0) << good.err;
    return good;
  }
  void expect_refused(const Result& good, std::initializer_list<std::string_view> parts) {
    const Result bad = encode();
    expect_failure(bad, ExitCode::content, {"/tokenizer.json: "});
    expect_failure(bad, ExitCode::content, parts);
    EXPECT_EQ(bad.out, "");
    if (has_sanitizers()) return;  // both cost time and memory of their own
    EXPECT_LT(bad.processor_seconds, 1.0) << bad.err;
    EXPECT_LT(bad.peak_mb, good.peak_mb + 64) << bad.err;
  }
  void refuse(const char* pointer, const Json& value, std::initializer_list<std::string_view> parts) {
    Json json = small_tokenizer();
    json[Json::json_pointer(pointer)] = value;
    refuse_text(json.dump(), parts);
  }
  TempDir dir_;
};

TEST_F(HostileTokenizer, Row45Ids) {
  refuse("/model/vocab/ll", 260, {"model.vocab.ll: id 260"});
  refuse("/model/vocab/ll", -1, {"model.vocab.ll: id -1"});
  refuse("/model/vocab/ll", 256, {"model.vocab.ll: id 256 is that of"});
}

TEST_F(HostileTokenizer, Row46MergeOfAnAbsentToken) {
  refuse("/model/merges/0", "h xy", {"model.merges.0: \"xy\" is not in the vocabulary"});
}

TEST_F(HostileTokenizer, Row47CatastrophicPatterns) {
  const char* field = "/pre_tokenizer/pretokenizers/0/pattern/Regex";
  for (const size_t size : {1 << 16, 1 << 20}) {
    write_file(dir_ / "text", std::string(size, 'a'));
    const Result good = encode_well();
    for (const char* pattern : {".*.*b|c", "[^b]*[^b]*b|c", "\\p{L}+\\p{L}+!|c", "(a+)+b", "a+a+a+a+a+b"}) {
      Json json = small_tokenizer();
      json[Json::json_pointer(field)] = pattern;
      write_file(dir_ / "tokenizer.json", json.dump());
      expect_refused(good, {"pre_tokenizer.pretokenizers.0.pattern: the pattern \"", "takes too long"});
    }
  }
}

// The file's own added token cuts the text into words, each of which costs over a third of what a text may.
TEST_F(HostileTokenizer, Row47CatastrophicPatternBetweenAddedTokens) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::string(20, 'a') + ' ';
  write_file(dir_ / "text", text);
  const Result good = encode_well();
  Json json = small_tokenizer();
  json["added_tokens"] = {added_token("<|eos|>", 259), added_token(" ", 260)};
  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+b|c";
  write_file(dir_ / "tokenizer.json", json.dump());
  expect_refused(good, {"pre_tokenizer.pretokenizers.0.pattern: the pattern \"(a+)+b|c\" takes too long"});
}

TEST_F(HostileTokenizer, Row48HugeTokens) {
  refuse(("/model/vocab/" + std::string(1 << 20, 'a')).c_str(), 259,
         {"a string or number of more than 65536 bytes"});
  refuse("/added_tokens/0/content", std::string(257, 'a'), {"added_tokens.0.content: more than 256 bytes"});
  const Result good = encode_well();
  std::filesystem::resize_file(dir_ / "tokenizer.json", 1ull << 30);  // sparse
  expect_refused(good, {"1073741824 bytes, at most"});
}

TEST_F(HostileTokenizer, Row49LoneSurrogate) {
  std::string text = small_tokenizer().dump();
  refuse_text(text.replace(text.find("\"hell\""), 6, "\"\\ud800\""), {"byte", "not valid JSON", "surrogate"});
}

TEST_F(HostileTokenizer, Row50EmptyAddedToken) {
  refuse("/added_tokens/0/content", "", {"added_tokens.0.content: an empty token"});
}

// Long runs are no attack: words, spaces and digits of a megabyte under the patterns of real models.
TEST(LongRuns, AreEncodedInTime) {
  TempDir dir;
  for (const char* name : {"v3", "llama3", "coder", "qwen"}) {
    const std::string tokenizer = DSV3_SOURCE_DIR "/tests/data/tokenizers/" + std::string(name);
    for (const char c : {'a', ' ', '7', '\n', '-'}) {
      const std::string text(1 << 20, c);
      const Result ids =
          dsv3({"tokenizer", "encode", "--tokenizer", tokenizer}, {.in_from = write_file(dir / "in", text)});
      EXPECT_EQ(ids.code, 0) << name << " '" << c << "' " << ids.err;
      if (!has_sanitizers()) {
        EXPECT_LT(ids.processor_seconds, 3.0) << name << " '" << c << "'";
      }
      const Result back = dsv3({"tokenizer", "decode", "--tokenizer", tokenizer},
                               {.in_from = write_file(dir / "ids", ids.out)});
      EXPECT_TRUE(back.out == text) << name << " '" << c << "'";
    }
  }
}

}  // namespace
}  // namespace dsv3::test
