#include "dsv3/data/fim.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include "data/token_files.h"
#include "data/tokenizer_case.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {
namespace {

using Ids = std::vector<int64_t>;

constexpr Fim kAlways = {.rate = 1, .begin = 900, .hole = 901, .end = 902, .eos = 903};

Ids count_from(int64_t first, int64_t length) {
  Ids ids(length);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

struct Parts {
  Ids prefix, suffix, middle;
};

// The three parts of a reordered part of a document, eos left out; nothing when it is in plain order.
std::optional<Parts> parts_of(Ids ids, const Fim& fim) {
  if (!ids.empty() && ids.back() == fim.eos) ids.pop_back();
  const auto hole = std::find(ids.begin(), ids.end(), fim.hole), end = std::find(hole, ids.end(), fim.end);
  if (ids.empty() || ids[0] != fim.begin || end == ids.end()) return std::nullopt;
  return Parts{{ids.begin() + 1, hole}, {hole + 1, end}, {end + 1, ids.end()}};
}

Ids text_of(const Parts& parts) {
  Ids text = parts.prefix;
  text.insert(text.end(), parts.middle.begin(), parts.middle.end());
  text.insert(text.end(), parts.suffix.begin(), parts.suffix.end());
  return text;
}

TEST(Fim, ThePartsPutTogetherAreABeginningOfTheDocument) {
  for (int64_t length = kFewestFimTokens; length < 80; ++length) {
    for (const bool ended : {false, true}) {
      for (uint64_t key = 0; key < 50; ++key) {
        Ids ids = count_from(0, length);
        if (ended) ids.push_back(kAlways.eos);
        const size_t size = ids.size();
        ASSERT_TRUE(fill_in_the_middle(ids, kAlways, key));
        ASSERT_EQ(ids.size(), size);
        ASSERT_EQ(ids.back() == kAlways.eos, ended);
        const auto parts = parts_of(ids, kAlways);
        ASSERT_TRUE(parts);
        ASSERT_EQ(text_of(*parts), count_from(0, length - 3)) << "length " << length << " key " << key;
      }
    }
  }
}

TEST(Fim, TheOrderIsPrefixSuffixMiddle) {
  Ids ids = count_from(0, 12);
  ids.push_back(kAlways.eos);
  // A change here breaks resuming from older checkpoints.
  ASSERT_TRUE(fill_in_the_middle(ids, kAlways, 4));
  EXPECT_EQ(ids, (Ids{900, 0, 1, 2, 3, 901, 8, 902, 4, 5, 6, 7, 903}));
}

TEST(Fim, CutsAreUniform) {
  constexpr int64_t kText = 9, kDraws = 20000;
  std::vector<int64_t> cuts(kText + 1), pairs((kText + 1) * (kText + 1));
  for (uint64_t key = 0; key < kDraws; ++key) {
    Ids ids = count_from(0, kText + 3);
    fill_in_the_middle(ids, kAlways, key);
    const Parts parts = *parts_of(ids, kAlways);
    const auto first = static_cast<int64_t>(parts.prefix.size());
    const auto second = first + static_cast<int64_t>(parts.middle.size());
    ++cuts[first];
    ++cuts[second];
    ++pairs[first * (kText + 1) + second];
  }
  // Each of the two is uniform on 10 places, and independent: 55 pairs, those of two places twice as often.
  const double expected = 2.0 * kDraws / (kText + 1), pair = kDraws / 100.0;
  for (const int64_t count : cuts) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
  for (int64_t a = 0; a <= kText; ++a) {
    for (int64_t b = a; b <= kText; ++b) {
      const double mean = a == b ? pair : 2 * pair;
      EXPECT_NEAR(pairs[a * (kText + 1) + b], mean, 5 * std::sqrt(mean)) << a << " " << b;
    }
  }
}

TEST(Fim, TheRateIsTheShareOfDocuments) {
  for (const double rate : {0.1, 0.5, 0.9}) {
    Fim fim = kAlways;
    fim.rate = rate;
    constexpr int64_t kDocuments = 20000;
    int64_t reordered = 0;
    for (uint64_t key = 0; key < kDocuments; ++key) {
      Ids ids = count_from(0, 10);
      const bool did = fill_in_the_middle(ids, fim, key);
      ASSERT_EQ(did, ids != count_from(0, 10));
      reordered += did ? 1 : 0;
    }
    EXPECT_NEAR(reordered, rate * kDocuments, 4 * std::sqrt(kDocuments * rate * (1 - rate)));
  }
  Ids ids = count_from(0, 10);
  EXPECT_FALSE(fill_in_the_middle(ids, Fim{.begin = 900, .hole = 901, .end = 902, .eos = 903}, 1));
}

TEST(Fim, ShortPartsAndThoseWithSentinelsStay) {
  for (uint64_t key = 0; key < 20; ++key) {
    for (int64_t length = 0; length < kFewestFimTokens; ++length) {
      Ids ids = count_from(0, length);
      if (length > 0) ids.push_back(kAlways.eos);
      const Ids before = ids;
      EXPECT_FALSE(fill_in_the_middle(ids, kAlways, key));
      EXPECT_EQ(ids, before);
    }
    for (const int64_t sentinel : {900, 901, 902}) {
      Ids ids = count_from(0, 20);
      ids[7] = sentinel;
      EXPECT_FALSE(fill_in_the_middle(ids, kAlways, key));
    }
  }
}

// small_tokenizer() with these special tokens from id 260 on, as a folder that says what its eos is.
std::string write_tokenizer(const TempDir& dir, const std::string& name,
                            const std::vector<std::string>& tokens, bool says_eos = true) {
  Json json = test::small_tokenizer();
  int64_t id = 260;
  for (const std::string& token : tokens) json["added_tokens"].push_back(test::added_token(token, id++));
  std::filesystem::create_directory(dir / name);
  write_file(dir / name / "tokenizer.json", json.dump());
  if (says_eos) write_file(dir / name / "tokenizer_config.json", R"({"eos_token": "<|eos|>"})");
  return (dir / name).string();
}

const std::vector<std::string> kDeepSeek = {"<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"};

TEST(FindFim, TakesTheSentinelsByTheNamesOfThreeFamilies) {
  TempDir dir;
  DataConfig data;
  data.fim_rate = 0.1;
  data.tokenizer = write_tokenizer(dir, "deepseek", kDeepSeek);
  const Fim fim = find_fim(data);
  EXPECT_EQ(fim.rate, 0.1);
  EXPECT_EQ((Ids{fim.begin, fim.hole, fim.end, fim.eos}), (Ids{261, 260, 262, 259}));
  for (const std::string before : {"<|fim_", "<fim_"}) {
    const std::string after = before == "<|fim_" ? "|>" : ">";
    data.tokenizer =
        write_tokenizer(dir, "other" + std::to_string(after.size()),
                        {before + "prefix" + after, before + "middle" + after, before + "suffix" + after});
    const Fim other = find_fim(data);
    EXPECT_EQ((Ids{other.begin, other.hole, other.end}), (Ids{260, 262, 261}));
  }
}

TEST(FindFim, RateZeroOpensNothing) {
  DataConfig data;
  data.tokenizer = "/no/such/file";
  EXPECT_EQ(find_fim(data).rate, 0);
}

TEST(FindFim, ATokenizerThatCannotIsRefused) {
  TempDir dir;
  DataConfig data;
  data.fim_rate = 0.1;
  expect_error(ExitCode::usage, {"data.fim_rate", "data.tokenizer"}, [&] { find_fim(data); });
  data.tokenizer = "byte";
  expect_error(ExitCode::usage, {"data.fim_rate", "byte has no tokens", "<｜fim▁begin｜>", "leave it at 0"},
               [&] { find_fim(data); });
  data.tokenizer = write_tokenizer(dir, "two", {kDeepSeek[0], kDeepSeek[1]});
  expect_error(ExitCode::usage, {"data.fim_rate", "has no tokens"}, [&] { find_fim(data); });
  data.tokenizer = write_tokenizer(dir, "silent", kDeepSeek, false);
  expect_error(ExitCode::usage, {"data.fim_rate", "which token ends a document"}, [&] { find_fim(data); });
}

TEST(FindFim, FilesOfAnotherEosAreRefused) {
  TempDir dir;
  DataConfig data;
  data.fim_rate = 0.1;
  data.tokenizer = write_tokenizer(dir, "t", kDeepSeek);
  data.train = {{(dir / "a").string()}, {(dir / "b").string()}};
  const std::string hash = open_tokenizer(data.tokenizer)->hash();
  auto describe = [&](const char* name, const std::string& of, int eos) {
    write_file(dir / name, Json({{"tokenizer_hash", of}, {"eos_id", eos}}).dump());
  };
  describe("a.json", hash, 7);
  EXPECT_EQ(find_fim(data).eos, 7) << "the files know better than the tokenizer";
  describe("b.json", hash, 8);
  expect_error(ExitCode::content, {"b.json", "eos_id", "8", "7"}, [&] { find_fim(data); });
  write_file(dir / "b.json", "[[");
  expect_error(ExitCode::content, {"b.json"}, [&] { find_fim(data); });
  write_file(dir / "b.json", "7");
  EXPECT_EQ(find_fim(data).eos, 7) << "a file of somebody else";
}

}  // namespace
}  // namespace dsv3
