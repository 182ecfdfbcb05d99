// Batches of tensors: what stands in them, and which rank has which sequence.
#include "dsv3/train/loader.h"

#include <gtest/gtest.h>

#include "data/sample_streams.h"
#include "support/ranks.h"

namespace dsv3 {
namespace {

using Rows = std::vector<std::vector<int64_t>>;

Rows rows(const at::Tensor& tensor_BS) {
  Rows out;
  for (int64_t b = 0; b < tensor_BS.size(0); ++b) {
    const at::Tensor row = tensor_BS[b].contiguous();
    out.emplace_back(row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.size(0));
  }
  return out;
}

class BatchesOfALoader : public testing::Test {
 protected:
  // Consecutive ids in documents of these lengths, in file order.
  RunConfig run(const std::vector<int>& lengths, const char* mask) {
    RunConfig run;
    run.data.train = {{write_tokens(dir_ / "text", 0, lengths)}};
    run.data.seq_len = 4;
    run.data.shuffle = false;
    run.data.mask = mask;
    run.model.vocab_size = 1000;
    run.train.micro_batch = 2;
    return run;
  }
  TempDir dir_;
};

TEST_F(BatchesOfALoader, MaskDocumentNumbersDocumentsAndIgnoresTargetsBehindTheirEnds) {
  const Batch batch = Loader(run({2, 1, 0, 5, 1}, "document"), Mesh::create({})).at(0, 2);
  ASSERT_EQ(batch.micro.size(), 1u);
  const MicroBatch& micro = batch.micro[0];
  EXPECT_EQ(rows(micro.tokens_BS), (Rows{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  ASSERT_TRUE(micro.documents_BS.defined());
  EXPECT_EQ(rows(micro.documents_BS), (Rows{{0, 0, 1, 3}, {3, 3, 3, 3}}));  // document 2 is empty
  constexpr int64_t no = kIgnoredTarget;
  // Also where the document ends with the sample: its last target is of another one, or of the same.
  EXPECT_EQ(rows(micro.targets_BS), (Rows{{1, no, no, 4}, {5, 6, 7, no}}));
  EXPECT_FALSE(micro.padding_BS.defined());
}

TEST_F(BatchesOfALoader, MaskNoneHasNeither) {
  const Batch batch = Loader(run({2, 1, 0, 5, 1}, "none"), Mesh::create({})).at(0, 2);
  ASSERT_EQ(batch.micro.size(), 1u);
  EXPECT_EQ(rows(batch.micro[0].targets_BS), (Rows{{1, 2, 3, 4}, {5, 6, 7, 8}}));
  EXPECT_FALSE(batch.micro[0].documents_BS.defined());
}

// Of any number of ranks, together and in their order: the stream. Also where the ranks divide nothing.
TEST_F(BatchesOfALoader, RanksReadOneStream) {
  const RunConfig config = run({401}, "document");
  const SampleStream stream = SampleStream::open(config, false);
  for (const int64_t world : {1, 2, 3, 4}) {
    for (const int64_t sequences : {1, 5, 12}) {
      const int64_t cursor = 7, largest = (sequences + world - 1) / world;
      std::vector<Batch> batches(static_cast<size_t>(world));
      test::run_ranks({.shard = world}, [&](const Mesh& mesh) {
        batches[static_cast<size_t>(mesh.rank())] = Loader(config, mesh).at(cursor, sequences);
      });
      int64_t next = cursor;
      for (const Batch& batch : batches) {
        EXPECT_EQ(batch.first_sample, next);
        EXPECT_EQ(std::ssize(batch.micro), (largest + 1) / 2) << "of 2 sequences, on every rank";
        for (const MicroBatch& micro : batch.micro) {
          EXPECT_LE(micro.tokens_BS.size(0), 2);
          EXPECT_EQ(micro.documents_BS.sizes(), micro.tokens_BS.sizes());
          for (const auto& tokens : rows(micro.tokens_BS)) {
            std::vector<int64_t> expected = sample(stream, next++);
            expected.pop_back();
            EXPECT_EQ(tokens, expected);
          }
        }
      }
      EXPECT_EQ(next, cursor + sequences) << world << " ranks";
    }
  }
}

TEST_F(BatchesOfALoader, TheNextBatchIsTheSameWhoeverReadsIt) {
  const Loader loader(run({401}, "document"), Mesh::create({}));
  LoaderAhead ahead(loader);
  for (const int64_t cursor : {0, 3, 6}) {
    ahead.begin(cursor, 3);
    for (const int64_t wanted : {cursor, cursor + 1}) {  // what was begun, and something else
      const Batch batch = ahead.take(wanted, 3), expected = loader.at(wanted, 3);
      ASSERT_EQ(batch.micro.size(), 2u);
      EXPECT_EQ(batch.first_sample, wanted);
      for (size_t i = 0; i < 2; ++i)
        EXPECT_EQ(rows(batch.micro[i].targets_BS), rows(expected.micro[i].targets_BS));
    }
  }
}

}  // namespace
}  // namespace dsv3
