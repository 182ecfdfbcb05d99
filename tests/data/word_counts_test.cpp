#include "dsv3/data/word_counts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "support/files.h"

namespace dsv3 {
namespace {

using Counts = std::map<std::string, int64_t>;

Counts sorted(const WordCounts& words) {
  Counts out;
  words.for_each([&](const WordCounts::Word& word) { out.emplace(word.text(), word.count); });
  return out;
}

TEST(WordCounts, AddsAndAbsorbs) {
  WordCounts a, b;
  a.add("one", 1);
  a.add("one", 2);
  a.add(std::string_view("\0", 1), 5);
  b.add("one", 10);
  b.add("two", 1);
  a.absorb(b);
  EXPECT_EQ(sorted(a), (Counts{{"one", 13}, {"two", 1}, {std::string(1, '\0'), 5}}));
  EXPECT_EQ(a.size(), 3u);
  EXPECT_EQ(a.bytes(), 7u);
  EXPECT_EQ(b.size(), 0u);
}

TEST(WordCounts, GrowsAndKeepsLongWords) {
  WordCounts words;
  Counts expected;
  for (int i = 0; i < 50'000; ++i) {
    const std::string word = fmt::format("{}", i * 7919 % 20'011);
    words.add(word, i);
    expected[word] += i;
  }
  const std::string big(3 << 20, 'x');
  words.add(big, 1);
  words.add("behind", 1);
  expected[big] = expected["behind"] = 1;
  EXPECT_TRUE(sorted(words) == expected);
}

class CountWords : public testing::Test {
 protected:
  CountWords() : splitter_(make("v3")) {}
  // The patterns themselves; that files are written with them is the matter of tokenizer_trainer_test.cpp.
  static PreTokenizer make(std::string_view kind) {
    const auto regex = [](std::string pattern) {
      return PreTokenizerStep{
          .kind = PreTokenizerStep::Kind::regex, .pattern = std::move(pattern), .field = ""};
    };
    std::vector<PreTokenizerStep> steps;
    if (kind == "v3") {
      steps.push_back(regex(R"(\p{N}{1,3})"));
      steps.push_back(regex("[一-龥぀-ゟ゠-ヿ]+"));
      steps.push_back(regex(
          R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"));
    } else {
      steps.push_back(regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"));
    }
    return PreTokenizer(std::move(steps), "test");
  }
  TextInput write(std::string_view name, std::string_view text) {
    return {.path = test::write_file(dir_ / name, text)};
  }
  static CountedText count(const std::vector<TextInput>& inputs, const PreTokenizer& splitter, int threads) {
    return count_words(inputs, splitter, {.threads = threads});
  }
  static Counts whole(const PreTokenizer& splitter, std::string_view text) {
    PreTokenizer::Memory memory;
    Regex::Budget budget(text.size());
    Counts out;
    splitter.split(text, memory, budget, [&](std::string_view word) { ++out[std::string(word)]; });
    return out;
  }
  test::TempDir dir_;
  PreTokenizer splitter_;
};

// Lines of words, numbers, marks and white space of all kinds.
std::string mixed_text(size_t size, uint32_t seed, bool lines = true) {
  static constexpr const char* kPieces[] = {
      "word", " the",   "don't", "1234567", "12",      "!!",     "...",    "(x)",    " ",      "  ",
      "\t",   "中文字", "の",    "é",       "e\u0301", "\u3000", "\u00a0", "\u2028", "\u0000", "ж",
      "ا",    "😀",      "'s",    "a.b",     "=====",   "\r",     "\u200b", "7 a"};
  std::string out;
  uint32_t x = seed;
  const auto random = [&](uint32_t below) {
    return (x = x * 1664525 + 1013904223) / (UINT32_MAX / below + 1);
  };
  while (out.size() < size) {
    out += kPieces[random(std::size(kPieces))];
    if (lines && random(6) == 0) out += random(3) == 0 ? "\r\n\n" : "\n";
  }
  return out;
}

TEST_F(CountWords, PiecesHaveTheWordsOfTheWhole) {
  for (const char* kind : {"v3", "gpt2"}) {
    const PreTokenizer splitter = make(kind);
    for (const bool lines : {true, false}) {
      const std::string text = mixed_text(1'300'000, 7, lines);
      const CountedText counted = count({write("a", text)}, splitter, 2);
      EXPECT_TRUE(sorted(counted.words) == whole(splitter, text)) << kind << lines;
      EXPECT_EQ(counted.bytes, text.size());
    }
  }
}

// Each way in which a piece may end, at each offset around the place where its end is looked for.
TEST_F(CountWords, CutsAreWhereWordsEnd) {
  constexpr size_t kPiece = 256 << 10;
  for (const char* kind : {"v3", "gpt2"}) {
    const PreTokenizer splitter = make(kind);
    for (const char* middle : {"\nword", "  word", " \n \n  word", "\n1234", "12345\n\n中文", "\n\u3000word",
                               "a\n!b", "\r\n\u0301x", "\u2028 b", "\n(a", "'\n's", ". b", "1 a", "中 a"}) {
      for (const size_t shift : {0, 1, 2, 4}) {
        std::string text(kPiece - shift, '-');
        for (size_t i = 0; i < text.size(); i += 100) text[i] = '\t';
        text += middle;
        text += std::string(kPiece / 16, '.') + "\nnext" + std::string(kPiece / 16, '.') + "\nlast";
        const CountedText counted = count({write("a", text)}, splitter, 1);
        EXPECT_TRUE(sorted(counted.words) == whole(splitter, text)) << kind << " " << middle << " " << shift;
      }
    }
  }
}

TEST_F(CountWords, AnyNumberOfThreadsGivesTheSame) {
  std::vector<TextInput> files;
  for (int i = 0; i < 5; ++i)
    files.push_back(write(fmt::format("{}", i), mixed_text(i == 2 ? 0 : 400'000, 11 + i)));
  const Counts one = sorted(count(files, splitter_, 1).words);
  for (const int threads : {2, 3, 8}) EXPECT_TRUE(sorted(count(files, splitter_, threads).words) == one);
}

TEST_F(CountWords, AWordThatNeverEndsIsCutAtACharacter) {
  for (const char* letter : {"a", "é", "中", "😀"}) {
    std::string text;
    while (text.size() < 3'000'000) text += letter;
    const Counts counts = sorted(count({write("a", text)}, splitter_, 2).words);
    uint64_t bytes = 0;
    for (const auto& [word, number] : counts) bytes += word.size() * static_cast<uint64_t>(number);
    EXPECT_EQ(bytes, text.size());
    EXPECT_EQ(counts, sorted(count({TextInput{.path = dir_ / "a"}}, splitter_, 1).words));
  }
}

TEST_F(CountWords, TheEndOfAFileEndsAWord) {
  const Counts counts =
      sorted(count({write("a", "one"), write("b", ""), write("c", "one two")}, splitter_, 2).words);
  EXPECT_EQ(counts, (Counts{{"one", 2}, {" two", 1}}));
  EXPECT_EQ(count({write("a", "")}, splitter_, 2).words.size(), 0u);
  EXPECT_EQ(count({}, splitter_, 2).words.size(), 0u);
}

TEST_F(CountWords, TheFirstTextThatIsNoUtf8IsNamed) {
  const std::string good = mixed_text(300'000, 3);
  for (const int threads : {1, 3}) {
    for (const char* bad : {"\xff", "\xc3", "\xed\xa0\x80", "\xc0\x80", "\x80\x80\x80\x80\x80\x80\x80\x80"}) {
      const std::string where = fmt::format("b: byte {}: is not UTF-8", good.size());
      test::expect_input_error({where}, [&] {
        count({write("a", good), write("b", good + bad + good + "\xff"), write("c", "\xff")}, splitter_,
              threads);
      });
    }
  }
  test::expect_input_error({"a: byte 0: is not UTF-8"},
                           [&] { count({write("a", std::string(2'000'000, '\x80'))}, splitter_, 2); });
  test::expect_input_error({"expected a regular file"},
                           [&] { count({TextInput{.path = dir_.path()}}, splitter_, 1); });
}

TEST_F(CountWords, LinesAreTextsByThemselves) {
  const TextInput lines{.path = write("a", "one two\n\n\xff\r\ntwo").path, .format = TextFormat::lines};
  const TextInput json{.path = write("b", "{\"body\": \"two\\n\"}\n7\n{\"body\": \"\"}").path,
                       .format = TextFormat::jsonl};
  std::string said;
  CountOptions options{.text_key = "body", .max_bad = 2};
  options.on_bad_line = [&](const std::string& line) { said += line + "\n"; };
  for (const int threads : {1, 2}) {
    options.threads = threads;
    options.max_bad = 2;
    said.clear();
    const CountedText text = count_words({lines, json}, splitter_, options);
    EXPECT_EQ(sorted(text.words), (Counts{{"one", 1}, {" two", 1}, {"two", 2}, {"\n", 1}}));
    EXPECT_EQ(text.bytes, 7u + 3 + 4);
    EXPECT_EQ(text.bad_lines, 2);
    EXPECT_NE(said.find("a:3: text: byte 0: is not UTF-8"), said.npos) << said;
    EXPECT_NE(said.find("b:2: a number, expected an object"), said.npos) << said;
    options.max_bad = 1;
    test::expect_input_error({"b:2: a number"}, [&] { count_words({lines, json}, splitter_, options); });
  }
}

TEST_F(CountWords, ProgressReachesTheEnd) {
  uint64_t last = 0;
  const std::string text = mixed_text(700'000, 3);
  CountOptions options{.threads = 2};
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, 2 * text.size());
    last = done;
  };
  count_words({write("a", text), write("b", text)}, splitter_, options);
  EXPECT_EQ(last, 2 * text.size());
}

}  // namespace
}  // namespace dsv3
