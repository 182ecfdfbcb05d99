#include "dsv3/data/loader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "data/sample_streams.h"

namespace dsv3 {
namespace {

TEST(SampleStream, InputsAreDisjointAndTheLastTokenIsOnlyATarget) {
  TempDir dir;
  SampleStream stream({{write_tokens(dir / "a", 0, {14})}}, 4, 0, false, 1000);
  ASSERT_EQ(stream.samples_per_epoch(), 3);  // 4 * 3 + 1 tokens; the 14th is left out
  EXPECT_EQ(sample(stream, 0), range(0, 5));
  EXPECT_EQ(sample(stream, 1), range(4, 9));
  EXPECT_EQ(sample(stream, 2), range(8, 13));
  EXPECT_EQ(sample(stream, 3), range(0, 5)) << "the next epoch";
}

TEST(SampleStream, ExactlyEnoughTokensAreEnough) {
  TempDir dir;
  const auto five = write_tokens(dir / "a", 0, {2, 3});
  EXPECT_EQ(SampleStream({{five}}, 4, 0, true, 1000).samples_per_epoch(), 1);
  expect_error(ExitCode::content, {"a.bin", "5 tokens", "seq_len = 5"},
               [&] { SampleStream({{five}}, 5, 0, true, 1000); });
  expect_error(ExitCode::content, {"a.bin"},
               [&] { SampleStream({{five}}, std::numeric_limits<int64_t>::max(), 0, true, 1000); });
}

TEST(SampleStream, DocumentsAreNumberedWhereTheyChange) {
  TempDir dir;
  SampleStream stream({{write_tokens(dir / "a", 0, {2, 1, 0, 5, 1})}}, 4, 0, false, 1000);
  std::vector<int64_t> tokens(5), documents(5);
  stream.read(0, tokens, documents);
  EXPECT_EQ(documents, (std::vector<int64_t>{0, 0, 1, 3, 3}));  // document 2 is empty
  stream.read(1, tokens, documents);
  EXPECT_EQ(tokens, range(4, 9));
  EXPECT_EQ(documents, (std::vector<int64_t>{3, 3, 3, 3, 4}));
}

TEST(SampleStream, EachEpochTakesEverySampleOnceInItsOwnOrder) {
  TempDir dir;
  const std::vector<DataSource> source = {{write_tokens(dir / "a", 0, {101})}};
  SampleStream stream(source, 1, 7, true, 1000), same(source, 1, 7, true, 1000),
      other(source, 1, 8, true, 1000);
  std::vector<int64_t> first, second, others;
  for (int64_t i = 0; i < 100; ++i) {
    first.push_back(sample(stream, i)[0]);
    second.push_back(sample(stream, 100 + i)[0]);
    others.push_back(sample(other, i)[0]);
    EXPECT_EQ(first.back(), sample(same, i)[0]);
  }
  for (const auto& order : {first, second, others})
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 100u);
  EXPECT_NE(first, second);
  EXPECT_NE(first, others);
  EXPECT_NE(first, range(0, 100));
}

TEST(SampleStream, AnyCursorReadsTheSameWithoutTheOnesBefore) {
  TempDir dir;
  const std::vector<DataSource> source = {{write_tokens(dir / "a", 0, {500})}};
  SampleStream walked(source, 3, 7, true, 1000);
  for (int64_t i = 0; i < 300; ++i) sample(walked, i);
  EXPECT_EQ(sample(walked, 300), sample(SampleStream(source, 3, 7, true, 1000), 300));
  sample(walked, std::numeric_limits<int64_t>::max());
}

TEST(SampleStream, SeveralSourcesStandBehindOneAnother) {
  TempDir dir;
  SampleStream stream({{write_tokens(dir / "a", 0, {7})}, {write_tokens(dir / "b", 100, {2, 3})}}, 2, 0,
                      false, 1000);
  ASSERT_EQ(stream.samples_per_epoch(), 5);
  EXPECT_EQ(sample(stream, 2), range(4, 7));
  EXPECT_EQ(sample(stream, 3), range(100, 103));
  EXPECT_EQ(sample(stream, 4), range(102, 105));
}

TEST(SampleStream, DocumentsAreNumberedInEachSource) {
  TempDir dir;
  SampleStream stream({{write_tokens(dir / "a", 0, {3, 4})}, {write_tokens(dir / "b", 100, {2, 3})}}, 4, 0,
                      false, 1000);
  std::vector<int64_t> tokens(5), documents(5);
  stream.read(0, tokens, documents);
  EXPECT_EQ(tokens, range(0, 5));
  EXPECT_EQ(documents, (std::vector<int64_t>{0, 0, 0, 1, 1}));
  stream.read(1, tokens, documents);
  EXPECT_EQ(tokens, range(100, 105));
  EXPECT_EQ(documents, (std::vector<int64_t>{0, 0, 1, 1, 1}));
}

TEST(SampleStream, ImpossibleSourcesAreRefused) {
  TempDir dir;
  const auto a = write_tokens(dir / "a", 0, {9});
  for (const double weight : {0.0, -1.0, double{NAN}, double{INFINITY}}) {
    expect_error(ExitCode::usage, {"data", "weight", "a number > 0"}, [&] {
      SampleStream({{a, 1}, {a, weight}}, 2, 0, true, 1000);
    });
  }
  expect_error(ExitCode::usage, {"data", "1048576", "6 digits"}, [&] {
    SampleStream({{a, 1}, {a, 0.1234567}}, 2, 0, true, 1000);
  });
  expect_error(ExitCode::usage, {"data", "no token file"}, [&] { SampleStream({}, 2, 0, true, 1000); });
  expect_error(ExitCode::usage, {"data.seq_len", "0"}, [&] { SampleStream({{a}}, 0, 0, true, 1000); });
}

TEST(SampleStream, Row77TokenOutsideTheVocabularyIsNamed) {
  TempDir dir;
  SampleStream stream({{write_tokens(dir / "a", 90, {20})}}, 4, 0, false, 100);
  EXPECT_EQ(sample(stream, 0), range(90, 95));
  expect_error(ExitCode::content, {"a.bin", "token 10", "id 100", "vocabulary 100"},
               [&] { sample(stream, 2); });

  RawPair negative{.dtype = 4,
                   .lengths = {2},
                   .pointers = {0},
                   .documents = {0, 1},
                   .sequences = 1,
                   .entries = 2,
                   .bin = raw<int32_t>({5, -3})};
  negative.write(dir / "b");
  SampleStream other({{(dir / "b").string()}}, 1, 0, false, 100);
  expect_error(ExitCode::content, {"b.bin", "token 1", "id -3"}, [&] { sample(other, 0); });
}

}  // namespace
}  // namespace dsv3
