#include "dsv3/data/regex.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "dsv3/data/unicode.h"
#include "support/files.h"

namespace dsv3 {
namespace {

std::string utf8(uint32_t c) {
  const auto byte = [](uint32_t value) { return static_cast<char>(value); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 63))};
  if (c < 0x10000) return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)),
          byte(0x80 | (c & 63))};
}

// All matches, each followed by '|'.
std::string matches(std::string_view pattern, std::string_view text) {
  const Regex regex(pattern, false, "f", "field");
  Regex::Memory memory;
  Regex::Budget budget(text.size());
  std::string out;
  size_t begin = 0, end = 0;
  while (regex.find(text, end, memory, budget, begin, end))
    out += std::string(text.substr(begin, end - begin)) + "|";
  return out;
}

TEST(Regex, HoldsUnicode16) {
  // Counts of the Unicode 16 tables of Oniguruma, and of White_Space.
  const std::pair<const char*, int> kCounts[] = {
      {"\\p{L}", 141028},  {"\\p{Lu}", 1858},  {"\\p{Ll}", 2258}, {"\\p{Lt}", 31},  {"\\p{Lm}", 404},
      {"\\p{Lo}", 136477}, {"\\p{M}", 2501},   {"\\p{N}", 1911},  {"\\p{Nd}", 760}, {"\\p{Nl}", 236},
      {"\\p{No}", 915},    {"\\p{P}", 855},    {"\\p{S}", 8514},  {"\\p{Z}", 19},   {"\\s", 25},
      {"\\d", 760},        {"[^\\s]", 1112039}};
  for (const auto& [pattern, count] : kCounts) {
    const Regex regex(pattern, false, "f", "p");
    Regex::Memory memory;
    Regex::Budget budget(100'000'000);
    int found = 0;
    for (uint32_t c = 0; c < 0x110000; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      size_t begin = 0, end = 0;
      found += regex.find(utf8(c), 0, memory, budget, begin, end);
    }
    EXPECT_EQ(found, count) << pattern;
  }
}

TEST(Regex, MatchesAsOniguruma) {
  EXPECT_EQ(matches("\\s+$", "a \nb \n"), " | \n|");
  EXPECT_EQ(matches("a.", "ab a\nac"), "ab|ac|");
  EXPECT_EQ(matches("(?i:'s|'LL)x", "'ſx 'Sx 'llx 'sX"), "'ſx|'Sx|'llx|");
  EXPECT_EQ(matches("\\s", "a\u180e \u3000\u0085"), " |\u3000|\u0085|");
  EXPECT_EQ(matches("[a\\-z\\]]+", "a-z]b"), "a-z]|");
  EXPECT_EQ(matches("[\\u4e00-\\u9fa5]+|\\x{1F600}", "中文x😀"), "中文|😀|");
  EXPECT_EQ(matches("(a)(?=b)|a{2}|[^b-d]{1,2}(?<!x)", "abaazz"), "a|aa|zz|");
  EXPECT_EQ(matches("\\P{L}+|\\p{^N}", "a1"), "a|1|");
  EXPECT_EQ(matches("]", "a]"), "]|");
}

TEST(Regex, FindsMatchesFarAway) {
  const std::string text = std::string(1000, 'x') + "éy" + std::string(200, 'x') + "y";
  EXPECT_EQ(matches("é?y", text), "éy|y|");
}

TEST(Regex, RefusesByNameWhatMayDiffer) {
  for (const char* pattern :
       {"\\w",         "\\b",         "\\h",         "\\R",       "\\X",         "\\K",      "\\1",
        "\\G",         "^a",          "\\p{Han}",    "\\p{Mn}",   "\\p{Alpha}",  "\\pL",     "[[a]]",
        "[[:alpha:]]", "[a&&b]",      "[\\S]",       "[\\P{L}]",  "(?i)a",       "(?<n>a)",  "(?#c)a",
        "(*FAIL)",     "(?i:\\p{L})", "(?i:é)",      "(?i:ss)",   "(?i:f(?:i))", "(?i:[é])", "(?i:[^a])",
        "a{,2}",       "a{1,2}?",     "a{1,2}+",     "a{x}",      "a{1000}",     "a**",      "*a",
        "a?*",         "[]a]",        "[z-a]",       "[a-\\s]",   "[\\s-a]",     "(a",       "a)",
        "[a",          "a\\",         "\\x{110000}", "\\x{D800}", "\\x{}",       "\\u12",    "\\xe9",
        "\\é",         "a|",          "a*",          "(?=a)",     "(?<=a+)b"}) {
    test::expect_input_error({"tokenizer.json: field: \""},
                             [&] { Regex(pattern, false, "tokenizer.json", "field"); });
  }
  test::expect_input_error({"nothing"}, [&] { Regex("+a", false, "tokenizer.json", "field"); });
  std::string deep;
  for (int i = 0; i < 10'000; ++i) deep += "(?:a";
  test::expect_input_error({"more than 100 groups"}, [&] { Regex(deep, false, "tokenizer.json", "field"); });
  test::expect_input_error({"field: "},
                           [&] { Regex("((a{999}){999}){999}", false, "tokenizer.json", "field"); });
}

std::string repeated(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

// Around the sizes at which an attempt sees more text than it saw at first.
TEST(Regex, MatchesOfAnyLength) {
  for (const size_t n :
       {1, 2, 63, 64, 65, 255, 256, 257, 447, 448, 449, 510, 511, 512, 513, 576, 5000, 1 << 20}) {
    const std::string spaces(n, ' '), letters = repeated("é", n);
    EXPECT_EQ(matches("\\s+(?!\\S)|\\s", spaces + "x"), n == 1 ? " |" : spaces.substr(1) + "| |");
    EXPECT_EQ(matches("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", "x" + spaces), spaces + "|");
    EXPECT_EQ(matches("\\s*[\\r\\n]+|\\s+", "x" + spaces + "\ny"), spaces + "\n|");
    EXPECT_EQ(matches("\\p{L}+$", letters), letters + "|");
    EXPECT_EQ(matches("\\p{L}+", letters + "1" + letters), letters + "|" + letters + "|");
    EXPECT_EQ(matches("(?<=1)\\p{L}+x", letters + "1" + letters + "x"), letters + "x|");
    EXPECT_EQ(matches("(?<=1)\\p{L}", repeated("1", n) + "é"), "é|");
    if (n > 5000) continue;  // a group keeps each place where it may go back to
    EXPECT_EQ(matches("(?:é|b)+?x|y", letters + "xy"), letters + "x|y|");
  }
}

TEST(Regex, Row47SlowPatternsAreStopped) {
  // Groups that are not repeated, and no two alike, which PCRE2 would make one: each doubles the ways.
  std::string choices;
  for (char c = 'A'; c <= 'Z'; ++c) choices += fmt::format("(?:a|[a{0}])(?:[a{0}]|a)", c);
  choices += "[bx]y|c";
  for (const std::string& pattern :
       {std::string("(a+)+b"), std::string(".*.*b|c"), std::string("[^b]*[^b]*b|c"),
        std::string("\\p{L}+\\p{L}+!|c"), std::string(".*.*.*.*.*.*b|c"), std::string("a*?a*?a*?b"),
        std::string("\\p{L}+(?>\\p{L}+)!"), std::string("(?=.*.*b)a|c"), std::string("(?:a?){40}b"),
        choices}) {
    for (const size_t size : {1 << 16, 1 << 20}) {
      SCOPED_TRACE(pattern + " " + std::to_string(size));
      const std::string text(size, 'a');
      test::expect_input_error({"f: field: the pattern \"", "takes too long on a piece of "},
                               [&] { matches(pattern, text); });
    }
  }
}

TEST(Unicode, KindsOfCharacters) {
  using namespace unicode;
  EXPECT_TRUE(is_word('_') && is_word(U'é') && is_word(0x200D) && !is_word('-') && !is_word(' '));
  EXPECT_TRUE(is_numeric('7') && is_numeric(0xBD) && is_numeric(0x2167) && !is_numeric('a'));
  EXPECT_TRUE(is_punctuation('$') && is_punctuation(0x3001) && !is_punctuation(0x20AC));
  EXPECT_TRUE(is_space(0x85) && is_space(0x3000) && !is_space(0x180E) && !is_space(0x200B));
}

TEST(Unicode, ValidPrefixOfUtf8) {
  using unicode::valid_utf8_prefix;
  for (const char* good : {"", "abcdefghijk", "é", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf", "abcdefg😀"}) {
    EXPECT_EQ(valid_utf8_prefix(good), std::string_view(good).size());
  }
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe4\xb8", "\xf0\x9f\x98",
                          "\xc3(", "\xe4\xb8("}) {
    EXPECT_EQ(valid_utf8_prefix(std::string("ab") + bad), 2u);
  }
}

}  // namespace
}  // namespace dsv3
