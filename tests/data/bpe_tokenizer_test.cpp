// Goldens are made by tools/peers/tokenizer.py --goldens with the library `tokenizers`.
#include "dsv3/data/bpe_tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "data/tokenizer_case.h"
#include "dsv3/data/tokenizer_trainer.h"

namespace dsv3 {
namespace {

using Ids = std::vector<int32_t>;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(DSV3_SOURCE_DIR) / "tests/data/tokenizers" / name;
}
Ids encode(const Tokenizer& tokenizer, std::string_view text, bool special = false) {
  Ids ids;
  tokenizer.encode(text, special, ids);
  return ids;
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, EveryIdAndEveryByteIsEqual) {
  const BpeTokenizer tokenizer(golden(GetParam()) / "tokenizer.json");
  const Json cases = read_json(golden(GetParam()) / "cases.json");
  ASSERT_GT(cases.size(), 10u);
  for (const Json& row : cases) {
    const std::string text = row["text"].get<std::string>();
    const Ids ids = row["ids"].get<Ids>();
    EXPECT_EQ(encode(tokenizer, text), ids) << text;
    EXPECT_EQ(encode(tokenizer, text, true), row.value("special", ids)) << text;
    EXPECT_EQ(tokenizer.decode(ids, true), row.value("decoded", text)) << text;
    DecodeStream stream(tokenizer, true);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.add(id);
    EXPECT_EQ(streamed + stream.finish(), row.value("decoded", text));
  }
}
INSTANTIATE_TEST_SUITE_P(Tokenizers, Golden, testing::Values("v3", "llama3", "prefix", "coder", "qwen"));

class SmallBpe : public testing::Test {
 protected:
  BpeTokenizer make(const Json& json = test::small_tokenizer()) {
    return BpeTokenizer(test::write_file(dir_ / "tokenizer.json", json.dump()));
  }
  test::TempDir dir_;
};

TEST_F(SmallBpe, MergesInTheOrderOfTraining) {
  const BpeTokenizer tokenizer = make();
  EXPECT_EQ(encode(tokenizer, "hello hell"), (Ids{258, 'o', ' ', 258}));
  EXPECT_EQ(encode(tokenizer, "lll"), (Ids{257, 'l'}));
  EXPECT_EQ(encode(tokenizer, "he<|eos|>ll"), (Ids{256, 259, 257}));
  EXPECT_EQ(encode(tokenizer, ""), Ids{});
}

// Merges one behind the other, each in one pass: BPE, where a merge makes no pair that comes before it.
Ids merge_in_passes(const TokenizerSpec& spec, std::string_view word) {
  std::map<std::string_view, int32_t> ids;
  for (size_t i = 0; i < spec.vocab.size(); ++i) ids[spec.vocab[i]] = spec.ids[i];
  Ids out;
  for (const char c : word) out.push_back(ids.at(test::letter(static_cast<unsigned char>(c))));
  for (size_t i = 0; i < spec.merges.size(); i += 2) {
    const int32_t left = ids.at(spec.merges[i]), right = ids.at(spec.merges[i + 1]);
    const int32_t both = ids.at(std::string(spec.merges[i]) + std::string(spec.merges[i + 1]));
    size_t kept = 0;
    for (size_t at = 0; at < out.size(); ++at) {
      const bool merged = at + 1 < out.size() && out[at] == left && out[at + 1] == right;
      out[kept++] = merged ? both : out[at];
      at += merged;
    }
    out.resize(kept);
  }
  return out;
}

// Words of several stretches (64 kB), whose borders fall into tokens of all kinds.
TEST_F(SmallBpe, LongWordsAreMergedAsAWhole) {
  uint32_t random = 1;
  const auto letters = [&](size_t size, uint32_t kinds, uint32_t longest_run) {
    std::string text;
    while (text.size() < size) {
      random = random * 1664525 + 1013904223;
      text += std::string(1 + (random >> 8) % longest_run, static_cast<char>('a' + (random >> 24) % kinds));
    }
    return text;
  };
  std::string learned;
  for (int i = 0; i < 1000; ++i) learned += letters(40, 3, 1 + i % 30) + "\n";
  train_tokenizer({.inputs = {test::write_file(dir_ / "learned.txt", learned)},
                   .out = dir_.path(),
                   .vocab_size = 259 + 200});
  const TokenizerSpec spec = read_tokenizer_json(dir_ / "tokenizer.json");
  ASSERT_EQ(spec.merges.size(), 400u);
  const BpeTokenizer tokenizer(dir_ / "tokenizer.json");
  for (const uint32_t kinds : {1, 2, 3}) {
    for (const uint32_t longest_run : {1, 5, 300}) {
      for (const size_t size : {65'537, 200'001}) {
        const std::string word = letters(size, kinds, longest_run);
        EXPECT_TRUE(encode(tokenizer, word) == merge_in_passes(spec, word)) << kinds << longest_run << size;
      }
    }
  }
}

TEST_F(SmallBpe, LongWordsTakeNoMemoryButTheirIds) {
  if (test::has_sanitizers()) GTEST_SKIP();
  const BpeTokenizer tokenizer = make();
  const std::string word(16 << 20, 'l');
  Ids ids;
  ids.reserve(word.size());
  test::reset_peak();
  const int64_t before = test::memory_status("VmRSS:");
  tokenizer.encode(word, false, ids);
  EXPECT_EQ(ids.size(), word.size() / 2);
  EXPECT_LT(test::memory_status("VmHWM:") - before, (16 << 20) * 2 + (16 << 20));
}

TEST_F(SmallBpe, LongWordsAreMergedAsShortOnes) {
  const BpeTokenizer tokenizer = make();
  // On both sides of the lengths at which the way of merging changes.
  for (int repeats : {1, 11, 12, 13, 30, 31, 32, 33, 1000}) {
    Ids expected;
    std::string word;
    for (int i = 0; i < repeats; ++i) {
      word += "hell";
      expected.push_back(258);
    }
    EXPECT_EQ(encode(tokenizer, word), expected);
    EXPECT_EQ(encode(tokenizer, word), expected) << "the second time";
  }
}

TEST_F(SmallBpe, OneWordOfAMegabyteTakesLinearTime) {
  const BpeTokenizer tokenizer = make();
  const double start = test::cpu_seconds();
  EXPECT_EQ(encode(tokenizer, std::string(1 << 20, 'l')).size(), 1u << 19);
  EXPECT_EQ(encode(tokenizer, std::string(1 << 20, ' ')).size(), 1u << 20);
  if (!test::has_sanitizers()) {
    EXPECT_LT(test::cpu_seconds() - start, 2.0);
  }
}

TEST_F(SmallBpe, ManyDifferentWordsPassTheStoreOfSeenOnes) {
  const BpeTokenizer tokenizer = make();
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += std::to_string(i) + "h ";
  Ids expected(text.begin(), text.end());
  EXPECT_EQ(encode(tokenizer, text), expected);
  EXPECT_EQ(encode(tokenizer, text), expected);
}

TEST_F(SmallBpe, IgnoreMergesTakesWordsThatAreTokens) {
  Json json = test::small_tokenizer();
  json["model"]["merges"] = Json::array();
  EXPECT_EQ(encode(make(json), "hell hello"), (Ids{'h', 'e', 'l', 'l', ' ', 'h', 'e', 'l', 'l', 'o'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode(make(json), "hell hello"), (Ids{258, ' ', 'h', 'e', 'l', 'l', 'o'}));
}

TEST_F(SmallBpe, TextThatIsNoUtf8IsRefused) {
  const BpeTokenizer tokenizer = make();
  for (const char* bytes : {"abcdefgh\xff", "abcdefgh\xc3", "abcdefgh\xed\xa0\x80", "abcdefgh\xc0\x80"}) {
    test::expect_input_error({"file.txt: byte 8: is not UTF-8"}, [&] {
      Ids ids;
      tokenizer.encode(bytes, false, ids, "file.txt");
    });
  }
}

TEST_F(SmallBpe, DecodesAnyIds) {
  const BpeTokenizer tokenizer = make();
  EXPECT_EQ(tokenizer.decode(Ids{-1, 'a', 260, INT32_MAX, 'b'}, false), "ab");
  EXPECT_EQ(tokenizer.decode(Ids{'a', 259, 'b'}, false), "a<|eos|>b");
  EXPECT_EQ(tokenizer.decode(Ids{'a', 259, 'b'}, true), "ab");
  EXPECT_EQ(tokenizer.decode(Ids{0xC3, 0xA9, 0xC3, 'x'}, true), "é\xEF\xBF\xBDx");
}

TEST_F(SmallBpe, StreamsWholeCharacters) {
  const BpeTokenizer tokenizer = make();
  DecodeStream stream(tokenizer, true);
  EXPECT_EQ(stream.add(0xF0), "");
  EXPECT_EQ(stream.add(0x9F), "");
  EXPECT_EQ(stream.add(0x98), "");
  EXPECT_EQ(stream.add(0x80), "😀");
  EXPECT_EQ(stream.add(259), "");
  EXPECT_EQ(stream.add(0xF0), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST_F(SmallBpe, EosIsWhatTheConfigSays) {
  const BpeTokenizer tokenizer = make();
  const auto config = [&](std::string_view text) { test::write_file(dir_ / "tokenizer_config.json", text); };
  EXPECT_EQ(tokenizer.eos(), std::nullopt);
  config(R"({"eos_token":null})");
  EXPECT_EQ(tokenizer.eos(), std::nullopt);
  config(R"({"eos_token":"<|eos|>"})");
  EXPECT_EQ(tokenizer.eos(), 259);
  config(R"({"eos_token":{"__type":"AddedToken","content":"hell"}})");
  EXPECT_EQ(tokenizer.eos(), 258);
  for (const char* text : {R"({"eos_token":"none"})", R"({"eos_token":7})", R"({"eos_token":{}})"}) {
    config(text);
    test::expect_input_error({"tokenizer_config.json: eos_token: "}, [&] { tokenizer.eos(); });
  }
  config("[]");
  test::expect_input_error({"tokenizer_config.json: "}, [&] { tokenizer.eos(); });
}

TEST_F(SmallBpe, ThreadsEncodeAtOnce) {
  const BpeTokenizer tokenizer(golden("v3") / "tokenizer.json");
  const Json cases = read_json(golden("v3") / "cases.json");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 50; ++round)
        for (const Json& row : cases)
          wrong[t] += encode(tokenizer, row["text"].get<std::string>()) != row["ids"].get<Ids>();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(OpenTokenizer, TakesByteFilesAndFolders) {
  EXPECT_EQ(open_tokenizer("byte")->vocab_size(), 259);
  EXPECT_EQ(open_tokenizer(golden("v3").string())->name(), (golden("v3") / "tokenizer.json").string());
  test::expect_error(ExitCode::usage, {"--tokenizer: none.json: no such file"},
                     [] { open_tokenizer("none.json"); });
  test::expect_input_error({"expected a regular file"}, [] { open_tokenizer("/dev/null"); });
}

TEST(ByteThroughTheInterface, TakesAnyBytes) {
  const auto tokenizer = open_tokenizer("byte");
  Ids ids;
  tokenizer->encode("a\xff", true, ids);
  EXPECT_EQ(ids, (Ids{'a', 255}));
  EXPECT_EQ(tokenizer->decode(Ids{'a', 255, 257}, false), "a\xEF\xBF\xBD");
}

}  // namespace
}  // namespace dsv3
