// What a tokenizer.json may hold, and everything that is refused: rows 45 to 50 of the hostile inputs among
// it.
#include "dsv3/data/tokenizer_json.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/tokenizer_case.h"
#include "dsv3/data/bpe_tokenizer.h"

namespace dsv3 {
namespace {

class TokenizerJson : public testing::Test {
 protected:
  void write(std::string_view text) { test::write_file(dir_ / "tokenizer.json", text); }
  void refuse_text(std::string_view text, std::initializer_list<std::string_view> parts) {
    write(text);
    test::expect_input_error({"/tokenizer.json: "}, [&] { BpeTokenizer(dir_ / "tokenizer.json"); });
    test::expect_input_error(parts, [&] { BpeTokenizer(dir_ / "tokenizer.json"); });
  }
  // The small tokenizer with the value at a JSON pointer replaced.
  void refuse(const char* pointer, const Json& value, std::initializer_list<std::string_view> parts) {
    Json json = test::small_tokenizer();
    json[Json::json_pointer(pointer)] = value;
    refuse_text(json.dump(), parts);
  }
  TokenizerSpec accept(const char* pointer, const Json& value) {
    Json json = test::small_tokenizer();
    json[Json::json_pointer(pointer)] = value;
    write(json.dump());
    return read_tokenizer_json(dir_ / "tokenizer.json");
  }
  static Json split(const char* pattern) {
    return {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  }
  test::TempDir dir_;
};

constexpr const char* kStep = "/pre_tokenizer/pretokenizers/0";

TEST_F(TokenizerJson, IsRead) {
  const TokenizerSpec spec =
      accept("/model/merges", Json::parse(R"([["h", "e"], ["l", "l"], ["he", "ll"]])"));
  EXPECT_EQ(spec.vocab.size(), 259u);
  EXPECT_EQ(spec.vocab[258], "hell");
  EXPECT_EQ(spec.vocab_size, 260);
  EXPECT_EQ(spec.merges.size(), 6u);
  EXPECT_EQ(spec.merges[4], "he");
  EXPECT_TRUE(spec.added[0].special);
  EXPECT_TRUE(spec.hash.starts_with("xxh3:"));
  EXPECT_NE(spec.hash, accept("/model/merges", {"h e", "l l", "he ll"}).hash);
}

TEST_F(TokenizerJson, WhatChangesNothingIsAccepted) {
  accept("/normalizer", {{"type", "Sequence"}, {"normalizers", Json::array()}});
  EXPECT_TRUE(accept("/normalizer", {{"type", "NFC"}}).nfc);
  EXPECT_TRUE(accept("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}}).nfc);
  accept("/model/unk_token", "a");
  accept("/model/byte_fallback", true);
  accept("/model/end_of_word_suffix", "");
  accept("/model/merges", {"#version: 0.2", "h e"});
  accept("/post_processor", {{"type", "ByteLevel"}, {"trim_offsets", false}});
}

// As openai-community/gpt2 is: of before model.type, ids of the vocabulary for its one added token.
TEST_F(TokenizerJson, TheFirstFilesAreAccepted) {
  Json json = test::small_tokenizer();
  const Json vocab = json["model"]["vocab"];
  json["model"] = {{"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", ""},
                   {"end_of_word_suffix", ""},
                   {"fuse_unk", false},
                   {"vocab", vocab},
                   {"merges", {"h e", "l l", "he ll"}}};
  json["added_tokens"] = {test::added_token("hell", 258)};
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  json["post_processor"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}};
  json["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}};
  write(json.dump());
  const TokenizerSpec spec = read_tokenizer_json(dir_ / "tokenizer.json");
  EXPECT_EQ(spec.merges.size(), 6u);
  EXPECT_EQ(spec.vocab_size, 259);
  ASSERT_EQ(spec.steps.size(), 1u) << "use_regex is on where it does not stand";
  std::vector<int32_t> ids;
  BpeTokenizer(dir_ / "tokenizer.json").encode("he hell he'll", false, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{256, ' ', 258, ' ', 256, '\'', 257}));
}

TEST_F(TokenizerJson, Row45Ids) {
  refuse("/model/vocab/ll", 260, {"model.vocab.ll: id 260, expected 0 to 259"});
  refuse("/model/vocab/ll", -1, {"model.vocab.ll: id -1"});
  refuse("/model/vocab/ll", INT64_MAX, {"model.vocab.ll: id 9223372036854775807"});
  refuse("/model/vocab/ll", 256, {"model.vocab.ll: id 256 is that of \"he\" too"});
  refuse("/model/vocab/ll", 1.5, {"model.vocab.ll: 1.5 is no integer"});
  refuse("/model/vocab/ll", "257", {"model.vocab.ll"});
  refuse("/added_tokens/0/id", 260, {"added_tokens.0.id: 260, expected 259"});
  refuse("/added_tokens/0/id", -1, {"added_tokens.0.id: -1"});
  refuse("/added_tokens/0/id", 4294967555, {"added_tokens.0.id: 4294967555"});
  refuse("/added_tokens/0", test::added_token("ll", 259), {"added_tokens.0.id: 259, expected 257"});
  refuse("/added_tokens", {test::added_token("a b", 259), test::added_token("a b", 260)},
         {"\"a b\" is there twice"});
  const std::string text = test::small_tokenizer().dump();
  std::string twice = text;
  twice.replace(text.find("\"he\":256"), 8, "\"he\":256,\"he\":259");
  refuse_text(twice, {"model.vocab.he: duplicate key"});
}

TEST_F(TokenizerJson, Row46MergeOfAnAbsentToken) {
  refuse("/model/merges/0", "h xy", {"model.merges.0: \"xy\" is not in the vocabulary"});
  refuse("/model/merges/0", "xy h", {"model.merges.0: \"xy\""});
  refuse("/model/merges/2", "h h", {"model.merges.2: \"hh\" is not in the vocabulary"});
  for (const char* merge : {"\"h\"", "\"h e l\"", "\"\"", "[]", "[\"h\"]", "[\"h\",\"e\",\"l\"]", "[\"h\",1]",
                            "7", "null", "[[]]", "{}"}) {
    refuse("/model/merges/0", Json::parse(merge), {"model.merges.0: "});
  }
}

TEST_F(TokenizerJson, Row47CatastrophicPattern) {
  const std::string words(1 << 20, 'a');
  for (const char* pattern :
       {"(a+)+b", "(?:a|a)*b", "(?:a*)*b", "(a|aa)+$b", "(?:(?:a?){100}){100}b", "a+a+a+a+a+b", ".*.*b|c"}) {
    Json json = test::small_tokenizer();
    json[Json::json_pointer(kStep)] = split(pattern);
    write(json.dump());
    // Either refused as a pattern or, in bounded time, on the text.
    test::expect_input_error({"pre_tokenizer.pretokenizers.0.pattern: ", "\""}, [&] {
      const BpeTokenizer tokenizer(dir_ / "tokenizer.json");
      std::vector<int32_t> ids;
      tokenizer.encode(words, false, ids);
    });
  }
}

TEST_F(TokenizerJson, Row48HugeToken) {
  write("");
  std::filesystem::resize_file(dir_ / "tokenizer.json", 1ull << 30);  // sparse
  test::expect_input_error({"1073741824 bytes, at most"}, [&] { BpeTokenizer(dir_ / "tokenizer.json"); });
  const std::string huge(40 << 20, 'a');
  refuse_text("{\"model\":{\"vocab\":{\"" + huge, {"a string or number of more than 65536 bytes"});
  refuse_text("{\"" + huge, {"a string or number of more than 65536 bytes"});
  refuse_text("{\"version\":" + std::string(1 << 20, '1'), {"a string or number of more than"});
  refuse("/added_tokens/0/content", std::string(257, 'a'), {"added_tokens.0.content: more than 256 bytes"});
}

TEST_F(TokenizerJson, Row49LoneSurrogate) {
  std::string text = test::small_tokenizer().dump();
  text.replace(text.find("\"hell\""), 6, "\"\\ud800\"");
  refuse_text(text, {"byte", "not valid JSON", "surrogate"});
  refuse_text("{\"a\":\"\xed\xa0\x80\"}", {"byte", "not valid JSON"});
  refuse_text("{\"a\":\"\xff\"}", {"byte", "not valid JSON"});
}

TEST_F(TokenizerJson, Row50EmptyAddedToken) {
  refuse("/added_tokens/0/content", "", {"added_tokens.0.content: an empty token"});
  refuse("/model/vocab/", 258, {"model.vocab.: an empty token"});
}

TEST_F(TokenizerJson, WhatIsNotSupportedIsNamed) {
  for (const char* type : {"NFD", "NFKC", "NFKD", "Lowercase", "Replace", "Prepend"})
    refuse("/normalizer", {{"type", type}}, {"normalizer: " + std::string(type) + " is not supported"});
  refuse("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
         {"normalizer.normalizers.0: Lowercase is not supported"});
  refuse("/decoder", {{"type", "Metaspace"}}, {"decoder: Metaspace is not supported"});
  refuse("/decoder", nullptr, {"decoder: is missing"});
  refuse("/post_processor", {{"type", "RobertaProcessing"}},
         {"post_processor: RobertaProcessing is not supported"});
  refuse("/pre_tokenizer", {{"type", "Metaspace"}}, {"pre_tokenizer: Metaspace is not supported"});
  refuse("/pre_tokenizer", nullptr, {"pre_tokenizer: is missing"});
  refuse("/pre_tokenizer/pretokenizers/1", split("a"), {"pre_tokenizer: has no ByteLevel at its end"});
  refuse("/pre_tokenizer/pretokenizers/2", split("a"),
         {"pre_tokenizer.pretokenizers.2: stands behind ByteLevel"});
  refuse((kStep + std::string("/behavior")).c_str(), "Sometimes", {"Sometimes is not supported"});
  refuse("/model/type", "WordPiece", {"model.type: WordPiece is not supported"});
  refuse("/model/type", nullptr, {"model.type: is no string"});
  refuse("/model/dropout", 0.1, {"model.dropout: "});
  refuse("/model/continuing_subword_prefix", "##", {"model.continuing_subword_prefix: "});
  refuse("/model/end_of_word_suffix", "</w>", {"model.end_of_word_suffix: "});
  refuse("/truncation", Json::object(), {"truncation: is not supported"});
  refuse("/padding", Json::object(), {"padding: is not supported"});
  refuse("/version", "2.0", {"version: "});
  refuse("/novelty", 1, {"novelty: unknown key"});
  refuse("/model/novelty", 1, {"model.novelty: unknown key"});
  refuse("/model/vocab", {{"a", 0}}, {"model.vocab: has no token for the byte 0x00"});
}

TEST_F(TokenizerJson, Templates) {
  const auto processor = [](const Json& single, const Json& ids) -> Json {
    return {{"type", "TemplateProcessing"},
            {"single", single},
            {"pair", Json::array()},
            {"special_tokens", {{"<b>", {{"id", "<b>"}, {"ids", ids}, {"tokens", {"<b>"}}}}}}};
  };
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json bos = {{"SpecialToken", {{"id", "<b>"}, {"type_id", 0}}}};
  const TokenizerSpec spec = accept("/post_processor", processor({bos, text, bos, bos}, {7, 8}));
  EXPECT_EQ(spec.before, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(spec.after, (std::vector<int32_t>{7, 8, 7, 8}));
  refuse("/post_processor", processor({bos, text}, {260}),
         {"special_tokens.<b>.ids.0: 260, expected 0 to 259"});
  refuse("/post_processor", processor({bos, text}, {-1}), {"special_tokens.<b>.ids.0: -1"});
  refuse("/post_processor", processor(Json::array({bos}), {7}), {"single: has no sequence A"});
  refuse("/post_processor", processor({text, text}, {7}), {"single.1.Sequence: "});
  const Json other = {{"SpecialToken", {{"id", "<c>"}, {"type_id", 0}}}};
  refuse("/post_processor", processor({other, text}, {7}), {"special_tokens.<c>: is missing"});
}

TEST_F(TokenizerJson, OtherWaysToBeWrong) {
  refuse_text("", {"byte 1: not valid JSON"});
  refuse_text(std::string_view("{}\0", 3), {"byte 2: not valid JSON: NUL byte"});
  for (const char* text : {"[]", "7", "null", "\"a\""}) refuse_text(text, {"is no JSON object"});
  refuse_text("{}", {"model: is missing"});
  refuse_text(R"({"model":{"type":"BPE"}})", {"model.vocab: is missing"});
  refuse_text(R"({"model":{}})", {"model.vocab: is missing"});
  refuse_text(R"({"model":{"vocab":{}}})", {"model.merges: is missing"});
  refuse_text(R"({"model":{"type":"BPE","vocab":[],"merges":{}}})", {"model."});
  refuse_text("{\"version\":\"1.0\",\"version\":\"1.0\"}", {"version: duplicate key"});
  refuse_text(R"({"model":{"vocab":{},"vocab":{}}})", {"model.vocab: duplicate key"});
  refuse_text(std::string(100'000, '['), {"nested deeper than 16"});
  std::string many = "{\"added_tokens\":[";
  for (int i = 0; i < 5'000'000; ++i) many += "{},";
  refuse_text(many, {"more than 131072 values"});
  many = "{\"model\":{\"vocab\":{";
  for (int i = 0; i < 1'000'000; ++i) many += fmt::format("\"{}\":1,", i);
  refuse_text(many, {"more than 524288 tokens"});
  many = "{\"model\":{\"merges\":[";
  for (int i = 0; i < 1'000'000; ++i) many += "\"a b\",";
  refuse_text(many, {"more than 524288 merges"});
}

TEST_F(TokenizerJson, TheLargestThatFailsAtItsEnd) {
  std::string text = "{\"model\":{\"type\":\"BPE\",\"vocab\":{";
  for (int i = 0; i < 1 << 19; ++i) text += fmt::format("{}\"{:x}\":{}", i ? "," : "", i, i);
  text += "},\"merges\":[";
  for (int i = 0; i < 1 << 19; ++i) text += fmt::format("{}\"{:x} {:x}\"", i ? "," : "", i, i);
  refuse_text(text + "]}}", {"model.vocab: has no token for the byte 0x00"});
}

}  // namespace
}  // namespace dsv3
