#pragma once
// Token files to samples, in an order that a seed and one integer fix.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "dsv3/config/run_config.h"
#include "dsv3/data/indexed_dataset.h"

namespace dsv3 {

// Sample number `cursor` of the endless stream: a keyed permutation of the samples of each epoch. Any rank
// can ask for any cursor, so resuming and resuming on another number of ranks need the integer alone.
//
// Sample i of a source is its tokens [i * seq_len, i * seq_len + seq_len + 1): inputs are disjoint, the last
// token is only a target. The tail of a source that fills no sample is left out. Several sources stand one
// behind the other.
class SampleStream {
 public:
  // seq_len + 1 tokens a sample. shuffle = false: file order (evaluation). vocab_size: ids beyond it are
  // InputError, found when they are read. UsageError: no source, seq_len < 1, a weight other than 1.
  // InputError: a source too short for one sample.
  SampleStream(const std::vector<DataSource>& sources, int64_t seq_len, uint64_t seed, bool shuffle,
               int64_t vocab_size);

  int64_t samples_per_epoch() const { return ends_.back(); }
  int64_t seq_len() const { return seq_len_; }
  // tokens: seq_len + 1 ids. documents: seq_len + 1 numbers that differ where the document does; may be
  // empty. cursor >= 0. Safe from several threads.
  void read(int64_t cursor, std::span<int64_t> tokens, std::span<int64_t> documents) const;

 private:
  std::vector<IndexedDataset> sets_;
  std::vector<int64_t> ends_;  // samples of the sources up to and with this one
  int64_t seq_len_;
  uint64_t seed_;
  bool shuffle_;
  int64_t vocab_size_;
};

}  // namespace dsv3
