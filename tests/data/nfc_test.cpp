// What is expected here is what `tokenizers` 0.23 gives.
#include "dsv3/data/nfc.h"

#include <gtest/gtest.h>

#include "data/tokenizer_case.h"
#include "dsv3/data/bpe_tokenizer.h"

namespace dsv3 {
namespace {

std::string nfc(std::string_view text) {
  NfcMemory memory;
  return std::string(to_nfc(text, memory));
}

TEST(Nfc, TextThatIsNfcIsNotCopied) {
  NfcMemory memory;
  for (const std::string_view text : {"English, more than eight bytes", "caf\u00e9 \u4e2d\u6587 \ud55c\uad6d",
                                      "\u0915\u093c\u094d", "a\u0334\u0317"})
    EXPECT_EQ(to_nfc(text, memory).data(), text.data());
}

TEST(Nfc, ComposesReordersAndSplits) {
  EXPECT_EQ(nfc("xe\u0301y"), "x\u00e9y");
  EXPECT_EQ(nfc("\u00e9\u0323"), "\u1eb9\u0301");
  EXPECT_EQ(nfc("a\u0301\u0323"), "\u1ea1\u0301");
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(nfc("\uac00\u11a7"), "\uac00\u11a7");
  EXPECT_EQ(nfc("\u212b \u2126 \u0958 \uf900"), "\u00c5 \u03a9 \u0915\u093c \u8c48");
  EXPECT_EQ(nfc("\u4e2d\u0301\u0323"), "\u4e2d\u0323\u0301");
}

TEST(Nfc, WhatIsNewerThanUnicode9StaysAsItIs) {
  // Marks of Unicode 14 and 12, and a pair of Unicode 13, which libutf8proc knows.
  for (const char* text : {"\u0345\u0898\u0334", "\u0345\u0eba\u0334", "\U00011935\U00011930"})
    EXPECT_EQ(nfc(text), text);
}

TEST(Nfc, AMegabyteOfMarksTakesTimeLikeSorting) {
  std::string text = "a", expected = "a";
  constexpr int kPairs = 1 << 18;
  for (int i = 0; i < kPairs; ++i) text += "\u0315\u0317";  // classes 232 and 220
  for (int i = 0; i < kPairs; ++i) expected += "\u0317";
  for (int i = 0; i < kPairs; ++i) expected += "\u0315";
  const double start = test::cpu_seconds();
  EXPECT_TRUE(nfc(text) == expected);
  if (!test::has_sanitizers()) {
    EXPECT_LT(test::cpu_seconds() - start, 1.0);
  }
}

class NfcTokens : public testing::Test {
 protected:
  BpeTokenizer with_token(bool normalized, std::string_view token) {
    Json json = test::small_tokenizer();
    json["normalizer"] = {{"type", "NFC"}};
    json["added_tokens"] = Json::array({test::added_token(token, 259)});
    json["added_tokens"][0]["normalized"] = normalized;
    return BpeTokenizer(test::write_file(dir_ / "tokenizer.json", json.dump()));
  }
  std::vector<int32_t> encode(bool normalized, std::string_view token, std::string_view text) {
    std::vector<int32_t> ids;
    with_token(normalized, token).encode(text, false, ids);
    return ids;
  }
  test::TempDir dir_;
};

TEST_F(NfcTokens, NormalizedOnesAreSoughtByTheirNfc) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(encode(true, "e\u0301", "x\u00e9e\u0301"), (Ids{'x', 259, 259}));
  EXPECT_EQ(encode(false, "e\u0301", "x\u00e9e\u0301"), (Ids{'x', 0xC3, 0xA9, 259}));
  // Pieces are normalized one by one: no mark joins what stands before a token.
  EXPECT_EQ(encode(false, "<t>", "e<t>\u0301"), (Ids{'e', 259, 0xCC, 0x81}));
}

TEST_F(NfcTokens, NormalizedOnesAreShownInNfc) {
  const std::vector<int32_t> id = {259};
  EXPECT_EQ(with_token(true, "e\u0301\u4e2d").decode(id, false), "\u00e9\u4e2d");
  EXPECT_EQ(with_token(false, "e\u0301\u4e2d").decode(id, false), "e\u0301\u4e2d");
}

TEST_F(NfcTokens, TwoOfTheSameNfcAreRefused) {
  Json json = test::small_tokenizer();
  json["added_tokens"] = {test::added_token("\u00e9\u00e9", 259), test::added_token("e\u0301e\u0301", 260)};
  for (Json& token : json["added_tokens"]) token["normalized"] = true;
  const auto file = test::write_file(dir_ / "tokenizer.json", json.dump());
  EXPECT_EQ(BpeTokenizer(file).vocab_size(), 261);
  json["normalizer"] = {{"type", "NFC"}};
  test::write_file(file, json.dump());
  test::expect_input_error({"added_tokens.1.content: ", "in NFC"}, [&] { BpeTokenizer{file}; });
}

}  // namespace
}  // namespace dsv3
