// Streams of several sources, reordered documents and epochs: what a resumed run relies on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "data/sample_streams.h"

namespace dsv3 {
namespace {

constexpr int64_t kSeqLen = 8, kVocab = 4000;

// Three sources of 40, 25 and 6 samples whose ids tell them apart, in documents of 1 to 30 tokens that end in
// eos. Document ids are never those of the sentinels.
class Blended : public testing::Test {
 protected:
  static constexpr Fim kFim = {.rate = 0.5, .begin = 3990, .hole = 3991, .end = 3992, .eos = 3993};
  static constexpr int64_t kSamples[3] = {40, 25, 6};

  std::string write(const std::string& name, int32_t first, int64_t samples) {
    std::mt19937 random(static_cast<unsigned>(first));
    IndexedDatasetWriter writer(dir_ / name, kVocab);
    for (int64_t left = samples * kSeqLen + 1; left > 0;) {
      const auto length = static_cast<int32_t>(std::min<int64_t>(left, 1 + random() % 30));
      for (int32_t i = 1; i < length; ++i) append(writer, first++);
      append(writer, static_cast<int32_t>(kFim.eos));
      writer.end_document();
      left -= length;
    }
    writer.finish();
    return (dir_ / name).string();
  }
  static void append(IndexedDatasetWriter& writer, int32_t id) { writer.append({&id, 1}); }

  std::vector<DataSource> sources(std::vector<double> weights) {
    std::vector<DataSource> all;
    for (size_t s = 0; s < weights.size(); ++s) {
      const std::string name(1, static_cast<char>('a' + s));
      all.push_back({write(name, static_cast<int32_t>(1000 * s), kSamples[s]), weights[s]});
    }
    return all;
  }
  static SampleStream open(const std::vector<DataSource>& sources, const Fim& fim = {}, bool shuffle = true) {
    return {sources, kSeqLen, 7, shuffle, kVocab, fim};
  }
  // The first token of a sample and its source by it; with eos in front its neighbour decides.
  static int64_t source_of(const std::vector<int64_t>& tokens) {
    for (const int64_t id : tokens)
      if (id < 3000) return id / 1000;
    return -1;
  }

  TempDir dir_;
};

using Samples = std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>;

Samples read(const SampleStream& stream, int64_t begin, int64_t end) {
  Samples samples;
  for (int64_t cursor = begin; cursor < end; ++cursor) {
    std::vector<int64_t> tokens(kSeqLen + 1), documents(kSeqLen + 1);
    stream.read(cursor, tokens, documents);
    samples.emplace_back(tokens, documents);
  }
  return samples;
}

TEST_F(Blended, AThousandResumedStreamsGiveTheBatchOfTheUninterruptedOne) {
  constexpr int64_t kBatch = 4, kSteps = 3000;  // of the smallest source 300 epochs
  const auto blend = sources({0.7, 0.15, 0.15});
  auto behind = blend;
  for (DataSource& source : behind) source.weight.reset();
  for (const auto& all : {blend, behind}) {
    const Samples uninterrupted = read(open(all, kFim), 0, kSteps * kBatch);
    std::mt19937 random(1);
    for (int i = 0; i < 1000; ++i) {
      const int64_t begin = static_cast<int64_t>(random() % kSteps) * kBatch;
      ASSERT_TRUE(std::ranges::equal(read(open(all, kFim), begin, begin + kBatch),
                                     std::span(uninterrupted).subspan(begin, kBatch)))
          << "cursor " << begin;
    }
  }
}

TEST_F(Blended, EverySourceGivesEachSampleOnceAnEpochInAnOrderOfItsOwn) {
  const auto all = sources({0.5, 0.3, 0.2});
  const SampleStream stream = open(all), in_file_order = open(all, {}, false);
  std::vector<std::vector<int64_t>> firsts[3];  // by source and epoch: the samples' first tokens after eos
  std::vector<int64_t> drawn(3, 0);
  for (int64_t cursor = 0; cursor < 1200; ++cursor) {
    ASSERT_EQ(cursors(stream, cursor), drawn);
    const auto tokens = sample(stream, cursor);
    const int64_t s = source_of(tokens);
    ASSERT_EQ(source_of(sample(in_file_order, cursor)), s) << "shuffling moves no source";
    if (drawn[s]++ % kSamples[s] == 0) firsts[s].emplace_back();
    firsts[s].back().push_back(*std::ranges::find_if(tokens, [](int64_t id) { return id < 3000; }));
  }
  for (int s = 0; s < 3; ++s) {
    ASSERT_GT(firsts[s].size(), 8u);
    firsts[s].pop_back();  // an epoch that has not ended
    for (size_t epoch = 0; epoch < firsts[s].size(); ++epoch) {
      const auto& order = firsts[s][epoch];
      EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), static_cast<size_t>(kSamples[s]));
      EXPECT_TRUE(epoch == 0 || order != firsts[s][epoch - 1]) << "source " << s;
    }
  }
}

TEST_F(Blended, SourcesOfOneLengthAreWalkedInOrdersOfTheirOwn) {
  const auto a = write_tokens(dir_ / "x", 0, {401}), b = write_tokens(dir_ / "y", 500, {401});
  const SampleStream stream = open({{a, 2}, {b, 2}});
  std::vector<int64_t> orders[2];
  for (int64_t cursor = 0; cursor < 100; ++cursor) {
    const int64_t first = sample(stream, cursor)[0];
    orders[first / 500].push_back(first % 500);
  }
  EXPECT_EQ(orders[0].size(), 50u);
  EXPECT_NE(orders[0], orders[1]);
}

TEST_F(Blended, AnEpochEndsBeforeTheFirstRepetition) {
  // The source that begins anew first is the last, the middle and the first one.
  const std::pair<std::vector<double>, int64_t> cases[] = {
      {{0.5, 0.3, 0.2}, 33}, {{0.2, 0.7, 0.1}, 36}, {{0.8, 0.15, 0.05}, 50}};
  for (const auto& [weights, expected] : cases) {
    const SampleStream stream = open(sources(weights), {}, false);
    const int64_t epoch = stream.samples_per_epoch();
    EXPECT_EQ(epoch, expected);
    std::set<std::vector<int64_t>> seen;
    for (int64_t cursor = 0; cursor < epoch; ++cursor)
      EXPECT_TRUE(seen.insert(sample(stream, cursor)).second);
    EXPECT_FALSE(seen.insert(sample(stream, epoch)).second);
  }
}

TEST_F(Blended, EqualWeightsAreEqualSharesWhateverTheyAre) {
  const auto ones = sources({1, 1, 1}), twos = sources({2, 2, 2});
  auto one_written = ones;
  one_written[0].weight.reset();
  one_written[2].weight.reset();
  const SampleStream stream = open(ones);
  EXPECT_EQ(cursors(stream, 99), (std::vector<int64_t>{33, 33, 33}));
  EXPECT_EQ(stream.samples_per_epoch(), 20) << "until the one of 6 samples begins anew";
  EXPECT_EQ(read(stream, 0, 200), read(open(twos), 0, 200));
  EXPECT_EQ(read(stream, 0, 200), read(open(one_written), 0, 200));
}

TEST_F(Blended, SourcesWithoutWeightsStandBehindOneAnotherAndOneSourceIsNoBlend) {
  auto all = sources({1, 1, 1});
  for (DataSource& source : all) source.weight.reset();
  const SampleStream stream = open(all);
  EXPECT_EQ(stream.samples_per_epoch(), 71);
  EXPECT_EQ(cursors(stream, 100), std::vector<int64_t>{100});
  const SampleStream one = open({{all[0].path}}), weighed = open({{all[0].path, 0.3}});
  EXPECT_EQ(read(one, 0, 200), read(weighed, 0, 200));
}

// --- Fill-in-the-middle.

TEST_F(Blended, ReorderedDocumentsStayInPlaceAndGiveTheOriginalBack) {
  const auto all = sources({0.5, 0.3, 0.2});
  const Samples plain = read(open(all), 0, 2000), reordered = read(open(all, kFim), 0, 2000);
  int64_t parts = 0, changed = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const auto& [before, documents] = plain[i];
    const auto& [after, same_documents] = reordered[i];
    ASSERT_EQ(documents, same_documents);
    for (size_t from = 0, to = 0; from < before.size(); from = to) {
      while (to < before.size() && documents[to] == documents[from]) ++to;
      std::vector<int64_t> was(before.begin() + from, before.begin() + to),
          is(after.begin() + from, after.begin() + to);
      if (was.back() == kFim.eos) {
        EXPECT_EQ(is.back(), kFim.eos);
        was.pop_back();
        is.pop_back();
      }
      if (static_cast<int64_t>(was.size()) < kFewestFimTokens) {
        EXPECT_EQ(was, is);
        continue;
      }
      ++parts;
      if (was == is) continue;
      ++changed;
      const auto hole = std::ranges::find(is, kFim.hole), end = std::ranges::find(is, kFim.end);
      ASSERT_EQ(is[0], kFim.begin);
      ASSERT_TRUE(hole < end && end < is.end());
      std::vector<int64_t> text(is.begin() + 1, hole);
      text.insert(text.end(), end + 1, is.end());
      text.insert(text.end(), hole + 1, end);
      was.resize(was.size() - 3);
      EXPECT_EQ(text, was);
    }
  }
  ASSERT_GT(parts, 1000);
  EXPECT_NEAR(changed, kFim.rate * parts, 4 * std::sqrt(parts * kFim.rate * (1 - kFim.rate)));
}

TEST_F(Blended, EachEpochDrawsAnewWhatIsReordered) {
  const auto all = sources({1});
  const SampleStream stream = open(all, kFim, false);
  EXPECT_NE(read(stream, 0, 40), read(stream, 40, 80));
}

TEST_F(Blended, EachDocumentOfASampleIsDecidedForItself) {
  const auto a = write_tokens(dir_ / "x", 0, std::vector<int>(90, 10));
  const SampleStream stream({{a}}, 89, 7, false, kVocab, kFim);
  std::map<int64_t, int64_t> samples;  // by documents reordered, of 9
  for (int64_t cursor = 0; cursor < 400; ++cursor)
    ++samples[std::ranges::count(sample(stream, cursor), kFim.end)];
  // Binomial: none in 1 of 512 samples, 4 or 5 in half of them.
  EXPECT_LT(samples[0] + samples[9], 10);
  EXPECT_NEAR(samples[4] + samples[5], 400 * 252 / 512, 50);
}

TEST_F(Blended, WithoutDocumentNumbersTheTokensAreTheSame) {
  const SampleStream stream = open(sources({0.5, 0.3, 0.2}), kFim);
  const Samples numbered = read(stream, 0, 100);
  for (int64_t cursor = 0; cursor < 100; ++cursor) EXPECT_EQ(sample(stream, cursor), numbered[cursor].first);
}

TEST_F(Blended, ImpossibleFimIsRefused) {
  const auto all = sources({1});
  for (const double rate : {-0.1, 1.1, double{NAN}}) {
    Fim fim = kFim;
    fim.rate = rate;
    expect_error(ExitCode::usage, {"data.fim_rate", "0 to 1"}, [&] { open(all, fim); });
  }
  Fim fim = kFim;
  fim.hole = kVocab;
  expect_error(ExitCode::content, {"data.tokenizer", "sentinel 4000", "vocabulary 4000"},
               [&] { open(all, fim); });
}

TEST_F(Blended, OpenObeysTheRunFileAndLeavesTheValidSplitAsItIs) {
  RunConfig run;
  run.data.train = sources({0.5, 0.3, 0.2});
  run.data.valid = {run.data.train[0]};
  run.data.seq_len = kSeqLen;
  run.data.seed = 7;
  run.model.vocab_size = kVocab;
  EXPECT_EQ(read(SampleStream::open(run, false), 0, 50), read(open(run.data.train), 0, 50));
  run.data.fim_rate = 0.5;
  expect_error(ExitCode::usage, {"data.fim_rate"}, [&] { SampleStream::open(run, false); });
  EXPECT_EQ(read(SampleStream::open(run, true), 0, 50), read(open(run.data.valid, {}, false), 0, 50));
}

}  // namespace
}  // namespace dsv3
