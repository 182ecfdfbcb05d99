#include "dsv3/data/ngram.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/token_files.h"
#include "dsv3/base/philox.h"

namespace dsv3 {
namespace {

class Ngram : public testing::Test {
 protected:
  IndexedDataset set(const std::string& name, const std::vector<std::vector<int32_t>>& documents) {
    IndexedDatasetWriter writer(dir_ / name, 1000);
    for (const auto& ids : documents) writer.add_document(ids);
    writer.finish();
    return IndexedDataset(dir_ / name);
  }
  TempDir dir_;
};

// Train 0 1 0 0, vocabulary 2. Order 1: 3 zeros, 1 one, 2 different: p(0) = (3 + 2/2) / 6 = 2/3, p(1) = 1/3.
// After 0 (twice): a 1 and a 0, 2 different: p(0|0) = (1 + 2 * 2/3) / 4 = 7/12, p(1|0) = 5/12.
// After 1 (once): a 0: p(0|1) = (1 + 2/3) / 2 = 5/6, p(1|1) = 1/6. After 0 1 (once): a 0: p(0|01) = (1 + 5/6)
// / 2.
TEST_F(Ngram, EqualsTheHandCalculation) {
  const auto train = set("t", {{0, 1, 0, 0}}), valid = set("v", {{0, 1, 0}, {1, 1}});
  const double bigram = -(std::log(5. / 12) + std::log(5. / 6) + std::log(5. / 12) + std::log(1. / 6)) / 4;
  EXPECT_NEAR(bigram_loss(train, valid, 2), bigram, 1e-14);
  // Token 1 has one token of context. Then 0|01, 1|10: (0 + 1 * 5/12) / 2, 1|01: (0 + 1 * 1/6) / 2.
  const double trigram =
      -(std::log(5. / 12) + std::log(11. / 12) + std::log(5. / 24) + std::log(1. / 12)) / 4;
  EXPECT_NEAR(trigram_loss(train, valid, 2), trigram, 1e-14);
}

TEST_F(Ngram, ProbabilitiesSumToOneInSeenAndUnseenContexts) {
  std::vector<int32_t> ids(200);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(philox_u64(1, 2, i) % 4);
  const auto train = set("t", {ids});
  constexpr int32_t kVocab = 6;  // 4 and 5 never appear
  for (int32_t a : {0, 3, 5}) {
    for (int32_t b : {1, 4}) {
      double two = 0, three = 0;
      for (int32_t c = 0; c < kVocab; ++c) {
        two += std::exp(-bigram_loss(train, set("v", {{b, c}}), kVocab));
        // The pair's mean loss, twice, less the first step's.
        const double step = bigram_loss(train, set("v", {{a, b}}), kVocab);
        three += std::exp(step - 2 * trigram_loss(train, set("v", {{a, b, c}}), kVocab));
      }
      EXPECT_NEAR(two, 1, 1e-12) << b;
      EXPECT_NEAR(three, 1, 1e-12) << a << " " << b;
    }
  }
}

// Files are read in blocks of 65,536 tokens: a context must cross their border.
TEST_F(Ngram, LearnsARuleOfEachOrderAcrossBlocks) {
  std::vector<int32_t> pairs(200000), triples = pairs;
  for (size_t i = 2; i < pairs.size(); ++i) {
    const auto noise = static_cast<int32_t>(philox_u64(3, 4, i) % 2);
    pairs[i] = (pairs[i - 1] * 3 + 1) % 10;                // fixed by one token
    triples[i] = i % 2 == 0 ? noise : triples[i - 2] ^ 1;  // two tokens tell more than one
  }
  const auto a = set("a", {pairs}), b = set("b", {triples});
  EXPECT_LT(bigram_loss(a, a, 259), 1e-3);
  EXPECT_LT(trigram_loss(b, b, 259), bigram_loss(b, b, 259) - 0.1);
}

TEST_F(Ngram, BadInputIsNamed) {
  const auto train = set("t", {{0, 1, 2}}), one = set("o", {{0}}), big = set("b", {{0, 900}});
  expect_error(ExitCode::content, {"o.bin", "1 tokens"}, [&] { bigram_loss(train, one, 259); });
  expect_error(ExitCode::content, {"b.bin", "token 1", "id 900"}, [&] { bigram_loss(train, big, 259); });
  expect_error(ExitCode::usage, {"order 3", "1000"}, [&] { trigram_loss(train, train, 1000); });
}

}  // namespace
}  // namespace dsv3
