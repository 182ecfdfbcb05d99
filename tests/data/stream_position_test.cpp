// Streams that go on with other sources and weights.
#include "dsv3/data/stream_position.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "data/sample_streams.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

// Sources a, b and c of 60, 40 and 24 samples; the one token that a sample is tells source and place.
class OtherBlend : public testing::Test {
 protected:
  OtherBlend() {
    fs::create_directories(dir_ / "old");
    fs::create_directories(dir_ / "new");
    for (const char* folder : {"old", "new"})
      for (size_t s = 0; s < 3; ++s)
        write_tokens(dir_ / folder / std::string(1, static_cast<char>('a' + s)),
                     static_cast<int32_t>(100 * s), {static_cast<int>(kSamples[s] + 1)});
  }
  DataSource source(const char* name, std::optional<double> weight = {}) {
    return {(dir_ / name).string(), weight};
  }
  static SampleStream open(const std::vector<DataSource>& sources) { return {sources, 1, 7, true, 1000}; }

  // Reads on to sample number `end`.
  void read(const SampleStream& stream, int64_t end) {
    for (; cursor_ < end; ++cursor_) {
      const int64_t id = sample(stream, cursor_)[0];
      given_[static_cast<size_t>(id / 100)].push_back(id % 100);
    }
  }
  // The same, then saves where it stands, as the next stream's beginning.
  void read_and_save(const SampleStream& stream, int64_t end) {
    read(stream, end);
    saved_ = stream.position(end);
  }
  SampleStream go_on(const std::vector<DataSource>& sources) {
    SampleStream stream = open(sources);
    said_ = stream.go_on(saved_, cursor_);
    return stream;
  }
  void expect_each_once_an_epoch(size_t source) {
    const auto& all = given_[source];
    for (size_t begin = 0; begin < all.size(); begin += kSamples[source]) {
      const size_t end = std::min(all.size(), begin + kSamples[source]);
      EXPECT_EQ(std::set<int64_t>(all.begin() + begin, all.begin() + end).size(), end - begin)
          << "source " << source << ", epoch " << begin / kSamples[source];
    }
  }
  std::string said() {
    std::string all;
    for (const std::string& line : said_) all += line.substr(line.find_last_of('/') + 1) + "\n";
    return all;
  }

  static constexpr size_t kSamples[3] = {60, 40, 24};
  TempDir dir_;
  std::vector<int64_t> given_[3];
  int64_t cursor_ = 0;
  StreamPosition saved_;
  std::vector<std::string> said_;
};

TEST_F(OtherBlend, EachSampleOfEachSourceOnceAnEpochAcrossChanges) {
  // One source, then two, other weights within a period, another order, a third before them, one taken out.
  read_and_save(open({source("old/a", 1)}), 13);
  read_and_save(go_on({source("old/a", 0.9), source("old/b", 0.1)}), 64);
  EXPECT_EQ(said(), "a goes on behind 13 samples\nb begins at its first sample\n");
  read_and_save(go_on({source("old/a", 0.5), source("old/b", 0.5)}), 107);
  EXPECT_EQ(said(), "a goes on behind 59 samples\nb goes on behind 5 samples\n");
  read_and_save(go_on({source("old/b", 0.5), source("old/a", 0.5)}), 130);
  EXPECT_EQ(given_[0].size(), 92u);
  read_and_save(go_on({source("old/c", 3), source("old/a", 1), source("old/b", 2)}), 301);
  read_and_save(go_on({source("old/c", 1), source("old/b", 3)}), 400);
  EXPECT_EQ(said(),
            "c goes on behind 86 samples\nb goes on behind 95 samples\na is left behind 120 samples\n");
  read(go_on({source("old/b", 1)}), 433);
  for (size_t s = 0; s < 3; ++s) expect_each_once_an_epoch(s);
  for (size_t s = 0; s < 3; ++s) EXPECT_GT(given_[s].size(), 2 * kSamples[s] - 1) << s;
}

// What is saved behind a change is enough to go on once more, at any sample.
TEST_F(OtherBlend, WhatWentOnGoesOn) {
  read_and_save(open({source("old/a", 0.9), source("old/b", 0.1)}), 33);
  const std::vector<DataSource> now = {source("old/c", 0.3), source("old/b", 0.5), source("old/a", 0.2)};
  const SampleStream uninterrupted = go_on(now);
  for (int64_t stop = 33; stop < 160; ++stop) {
    saved_ = uninterrupted.position(stop);
    cursor_ = stop;
    const SampleStream again = go_on(now);
    EXPECT_TRUE(stop == 33 || said_.empty());
    for (int64_t cursor = stop; cursor < stop + 40; ++cursor)
      ASSERT_EQ(sample(again, cursor), sample(uninterrupted, cursor)) << stop;
    EXPECT_EQ(cursors(again, stop + 11), cursors(uninterrupted, stop + 11));
  }
}

TEST_F(OtherBlend, TheSameBlendGoesOnAsItWould) {
  for (const auto& sources : std::vector<std::vector<DataSource>>{
           {source("old/a")},
           {source("old/a"), source("old/b")},
           {source("old/a", 1), source("old/b", 1)},
           {source("old/a", 0.7), source("old/b", 0.2), source("old/c", 0.1)}}) {
    const SampleStream stream = open(sources);
    for (const int64_t stop : {1, 9, 77, 1234}) {
      saved_ = stream.position(stop);
      cursor_ = stop;
      std::vector<DataSource> same = sources;
      for (DataSource& source : same)
        if (source.weight) *source.weight *= 10;  // the ratio is what counts
      const SampleStream again = go_on(same);
      EXPECT_EQ(said(), "");
      for (int64_t cursor = stop; cursor < stop + 200; ++cursor)
        ASSERT_EQ(sample(again, cursor), sample(stream, cursor));
    }
  }
}

TEST_F(OtherBlend, FilesThatWereMovedAreKnownByTheirNames) {
  read_and_save(open({source("old/a", 0.9), source("old/b", 0.1)}), 33);
  go_on({source("new/a", 0.9), source("new/b", 0.1)});
  EXPECT_EQ(said(), "");
  go_on({source("new/b", 0.9), source("old/a", 0.1)});
  EXPECT_EQ(said(), "b goes on behind 3 samples\na goes on behind 30 samples\n");
  // Two that could be it: none is.
  go_on({source("new/b", 0.5), source("./old/../new/b", 0.5)});
  EXPECT_EQ(said(),
            "b begins at its first sample\nb begins at its first sample\n"
            "a is left behind 30 samples\nb is left behind 3 samples\n");
}

TEST_F(OtherBlend, SourcesBehindOneAnotherHaveOneOrder) {
  read_and_save(open({source("old/a"), source("old/b")}), 33);
  const SampleStream stream = go_on({source("old/a", 0.5), source("old/b", 0.5)});
  ASSERT_EQ(said_.size(), 3u);
  EXPECT_NE(said_[2].find("a and the 1 sources behind it, which have one order is left behind 33 samples"),
            std::string::npos)
      << said_[2];
  EXPECT_EQ(cursors(stream, 33), (std::vector<int64_t>{0, 0}));
  // And the other way round, they begin together.
  for (auto& given : given_) given.clear();
  read_and_save(stream, 53);
  for (auto& given : given_) given.clear();
  read(go_on({source("old/a"), source("old/b")}), 153);
  expect_each_once_an_epoch(0);
  expect_each_once_an_epoch(1);
  EXPECT_EQ(given_[0].size() + given_[1].size(), 100u);
  EXPECT_EQ(given_[1].size(), 40u);
}

TEST_F(OtherBlend, WithoutAPositionAStreamBeginsAnew) {
  const std::vector<DataSource> all = {source("old/a", 0.9), source("old/b", 0.1)};
  read_and_save(open(all), 10);
  SampleStream stream = open(all);
  stream.go_on(saved_, 500);
  EXPECT_EQ(cursors(stream, 500), (std::vector<int64_t>{9, 1}));
  EXPECT_TRUE(stream.go_on({}, 500).empty());
  EXPECT_EQ(sample(stream, 500), sample(open(all), 500));
  saved_.walks[0].cursor = 3;
  EXPECT_THROW(stream.go_on(saved_, 500), std::invalid_argument);
}

}  // namespace
}  // namespace dsv3
