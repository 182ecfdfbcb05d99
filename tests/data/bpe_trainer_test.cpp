#include "dsv3/data/bpe_trainer.h"

#include <gtest/gtest.h>

#include <map>

#include "support/files.h"

namespace dsv3 {
namespace {

WordCounts count(std::initializer_list<std::pair<std::string_view, int64_t>> words) {
  WordCounts counts;
  for (const auto& [word, number] : words) counts.add(word, number);
  return counts;
}
// "left+right" of each merge.
std::vector<std::string> merges(const LearnedBpe& bpe) {
  std::vector<std::string> out;
  for (const auto& [left, right] : bpe.merges) out.push_back(bpe.tokens[left] + "+" + bpe.tokens[right]);
  return out;
}
std::vector<std::string> learn(std::initializer_list<std::pair<std::string_view, int64_t>> words,
                               BpeTrainerOptions options = {.num_tokens = 300}) {
  return merges(learn_bpe(count(words), options));
}
using Merges = std::vector<std::string>;

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  EXPECT_EQ(learn({{"hug", 10}, {"pug", 5}, {"pun", 12}, {"bun", 4}, {"hugs", 5}}, {.num_tokens = 259}),
            (Merges{"u+g", "u+n", "h+ug"}));
  // Counts follow the merges: of b c there are 3 left, which is less than the 4 of x y.
  EXPECT_EQ(learn({{"abc", 6}, {"bc", 3}, {"ab", 1}, {"xy", 4}}), (Merges{"b+c", "a+bc", "x+y"}));
}

TEST(BpeTrainer, OfEqualCountsTheSmallerIdsWin) {
  EXPECT_EQ(learn({{"zy", 3}, {"ab", 3}, {"ba", 3}}), (Merges{"a+b", "b+a", "z+y"}));
  // Ids are in the order of letters: that of the space comes behind all printable ones.
  EXPECT_EQ(learn({{" a", 3}, {"~a", 3}}), (Merges{"~+a", " +a"}));
  // Learned tokens come behind the bytes.
  EXPECT_EQ(learn({{"abc", 3}, {"zz", 3}}), (Merges{"a+b", "z+z", "ab+c"}));
}

TEST(BpeTrainer, OverlappingPairsAreMergedFromTheLeft) {
  EXPECT_EQ(learn({{"aaa", 2}}), (Merges{"a+a", "aa+a"}));
  // aa aa a: both pairs are there once, and a has the smaller id.
  EXPECT_EQ(learn({{"aaaaa", 2}}), (Merges{"a+a", "aa+a", "aa+aaa"}));
  // In "aaa" the pair (a, a) is there twice.
  EXPECT_EQ(learn({{"aaa", 2}, {"bc", 3}}, {.num_tokens = 257}), (Merges{"a+a"}));
}

TEST(BpeTrainer, WordsAreApart) {
  EXPECT_EQ(learn({{"a", 100}, {"b", 100}, {"cd", 2}}), (Merges{"c+d"}));
  EXPECT_EQ(learn({{"a", 100}}), Merges{});
  EXPECT_EQ(learn({}), Merges{});
}

TEST(BpeTrainer, StopsAtTheSizeAndAtTheFrequency) {
  EXPECT_EQ(learn({{"abcd", 9}}, {.num_tokens = 256}), Merges{});
  EXPECT_EQ(learn({{"abcd", 9}}, {.num_tokens = 258}), (Merges{"a+b", "c+d"}));
  EXPECT_EQ(learn({{"ab", 3}, {"cd", 2}}, {.num_tokens = 300, .min_frequency = 3}), (Merges{"a+b"}));
  EXPECT_EQ(learn({{"ab", 1}}, {.num_tokens = 300, .min_frequency = 1}), (Merges{"a+b"}));
  EXPECT_EQ(learn({{"ab", 1}}), Merges{});
}

TEST(BpeTrainer, TokensAreAllBytesThenWhatWasLearned) {
  const LearnedBpe bpe = learn_bpe(count({{"\xff\xfe", 2}}), {.num_tokens = 300});
  ASSERT_EQ(bpe.tokens.size(), 257u);
  EXPECT_EQ(bpe.tokens[0], "!");
  EXPECT_EQ(bpe.tokens[188], std::string(1, '\0'));
  EXPECT_EQ(bpe.tokens[256], "\xff\xfe");
}

TEST(BpeTrainer, ForbiddenTextsAreNotLearned) {
  EXPECT_EQ(learn({{"<s>", 9}, {"<s>x", 5}}), (Merges{"<+s", "<s+>", "<s>+x"}));
  EXPECT_EQ(learn({{"<s>", 9}, {"<s>x", 5}}, {.num_tokens = 300, .forbidden = {"<s>"}}),
            (Merges{"<+s", ">+x", "<s+>x"}));
}

TEST(BpeTrainer, TokensHaveALongestLength) {
  const LearnedBpe bpe = learn_bpe(count({{std::string(10'000, 'a'), 2}}), {.num_tokens = 1000});
  size_t longest = 0;
  for (const std::string& token : bpe.tokens) longest = std::max(longest, token.size());
  EXPECT_EQ(longest, kMaxLearnedBytes);
}

TEST(BpeTrainer, OneLongWordTakesLinearTime) {
  std::string word;
  for (uint32_t i = 0, x = 1; i < 1 << 20; ++i, x = x * 1664525 + 1013904223)
    word += static_cast<char>('a' + (x >> 28));
  const double start = test::cpu_seconds();
  EXPECT_EQ(learn_bpe(count({{word, 1}}), {.num_tokens = 5000}).tokens.size(), 5000u);
  EXPECT_EQ(learn_bpe(count({{std::string(1 << 20, 'a'), 1}}), {.num_tokens = 5000}).tokens.size(), 264u);
  if (!test::has_sanitizers()) {
    EXPECT_LT(test::cpu_seconds() - start, 5.0);
  }
}

// All pairs counted anew before each merge: what the heap and the counts by place have to be equal to.
std::vector<std::string> learn_slowly(const std::vector<std::pair<std::string, int64_t>>& words,
                                      size_t num_merges) {
  std::vector<std::string> out, tokens;
  for (int byte = 0; byte < 128; ++byte)
    tokens.emplace_back(1, static_cast<char>(byte));  // ASCII: letters' order
  std::vector<std::vector<int>> split;
  for (const auto& [word, number] : words) split.emplace_back(word.begin(), word.end());
  while (out.size() < num_merges) {
    std::map<std::pair<int, int>, int64_t> pairs;
    for (size_t w = 0; w < words.size(); ++w)
      for (size_t i = 0; i + 1 < split[w].size(); ++i)
        pairs[{split[w][i], split[w][i + 1]}] += words[w].second;
    std::pair<int, int> best;
    int64_t most = 1;
    for (const auto& [pair, number] : pairs) {
      if (number <= most) continue;
      best = pair;
      most = number;
    }
    if (most < 2) break;
    out.push_back(tokens[best.first] + "+" + tokens[best.second]);
    const int id = static_cast<int>(tokens.size());
    tokens.push_back(tokens[best.first] + tokens[best.second]);
    for (std::vector<int>& word : split) {
      std::vector<int> merged;
      for (size_t i = 0; i < word.size(); ++i) {
        const bool both = i + 1 < word.size() && word[i] == best.first && word[i + 1] == best.second;
        merged.push_back(both ? id : word[i]);
        i += both;
      }
      word = merged;
    }
  }
  return out;
}

TEST(BpeTrainer, IsEqualToCountingAnewBeforeEachMerge) {
  uint32_t x = 1;
  const auto random = [&](uint32_t below) {
    return (x = x * 1664525 + 1013904223) / (UINT32_MAX / below + 1);
  };
  for (int round = 0; round < 20; ++round) {
    std::vector<std::pair<std::string, int64_t>> words;
    WordCounts counts;
    for (int w = 0; w < 60; ++w) {
      std::string word(1 + random(9), 'a');
      for (char& c : word) c = static_cast<char>('a' + random(4 + round));
      // No repeated letter: where pairs overlap a count is not what counting anew gives.
      word.erase(std::unique(word.begin(), word.end()), word.end());
      words.emplace_back(word, 1 + random(20));
      counts.add(words.back().first, words.back().second);
    }
    const std::vector<std::string> learned = merges(learn_bpe(counts, {.num_tokens = 256 + 60}));
    EXPECT_EQ(learned, learn_slowly(words, learned.size()));
    EXPECT_GT(learned.size(), 20u);
  }
}

}  // namespace
}  // namespace dsv3
