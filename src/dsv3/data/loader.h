#pragma once
// Token files to samples, in an order that a seed and one integer fix.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dsv3/config/run_config.h"
#include "dsv3/data/blend.h"
#include "dsv3/data/fim.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/stream_position.h"

namespace dsv3 {

// Sample number `cursor` of an endless stream. Any rank can ask for any cursor, so resuming with the same
// sources and weights, also on another number of ranks, needs the integer alone. With others each source goes
// on from a cursor of its own: go_on().
//
// Sample i of a source is its tokens [i * seq_len, i * seq_len + seq_len + 1): inputs are disjoint, the last
// token is only a target. The tail of a source that fills no sample is left out. A sample has one source.
//
// No weights: the sources stand one behind the other, and an epoch is a keyed permutation of all their
// samples. One or more weights: a blend (data/blend.h). After n samples a source has given
// n * weight / (sum of the weights), off by less than one, however large it is; each goes through epochs of
// its own, each a keyed permutation of its own, so a small source with a large weight repeats itself sooner.
//
// Fill-in-the-middle (data/fim.h) is decided by (seed, cursor, document): a document that several samples
// share is reordered in each or not, and anew in each epoch.
class SampleStream {
 public:
  // seq_len + 1 tokens a sample. shuffle = false: file order (evaluation). vocab_size: ids beyond it are
  // InputError, found when they are read. UsageError: no source, seq_len < 1, a weight that is not finite and
  // > 0, weights without an exact blend (config/shares.h), a rate outside [0, 1]. InputError: a source too
  // short for one sample, a sentinel of fim outside the vocabulary.
  SampleStream(const std::vector<DataSource>& sources, int64_t seq_len, uint64_t seed, bool shuffle,
               int64_t vocab_size, const Fim& fim = {});
  // The training stream of [data]; with `valid` the evaluation split, in file order and never reordered for
  // fill-in-the-middle. Errors of the constructor, require_one_tokenizer() and find_fim().
  static SampleStream open(const RunConfig& run, bool valid);

  // Of a blend: the samples before one of its sources begins anew, so that none of them is a repetition.
  int64_t samples_per_epoch() const { return samples_per_epoch_; }
  int64_t seq_len() const { return seq_len_; }
  // What each source has given before sample number cursor.
  StreamPosition position(int64_t cursor) const;
  // Sample number cursor is the next one and `saved` is where the stream stood there, maybe with other
  // sources or weights; without walks it is a stream from its beginning. A blend that is the saved one goes
  // on within its period, another begins here, with each source where it stood. Returns what take_over()
  // says. std::invalid_argument: a source has given less than its share. Not while another thread reads.
  std::vector<std::string> go_on(const StreamPosition& saved, int64_t cursor);
  // tokens: seq_len + 1 ids. documents: seq_len + 1 numbers that differ where the document does; may be
  // empty. cursor >= 0, of a stream that goes on not before that. Safe from several threads.
  void read(int64_t cursor, std::span<int64_t> tokens, std::span<int64_t> documents) const;

 private:
  struct Place {
    size_t source;
    int64_t sample;  // of the source, in file order
  };
  Place place_of(int64_t cursor) const;
  int64_t samples_of(size_t source) const { return ends_[source] - (source == 0 ? 0 : ends_[source - 1]); }
  int64_t shuffled(int64_t index, int64_t samples, uint64_t seed) const;
  void check_fim(int64_t vocab_size) const;
  // Of each walk, samples since the blend began.
  std::vector<int64_t> drawn(int64_t samples) const;

  std::vector<Walk> first_walks_;  // of a stream from its beginning
  std::vector<Walk> walks_;        // where they stood at origin_
  int64_t origin_ = 0;             // the sample number at which the blend began
  std::vector<IndexedDataset> sets_;
  std::vector<int64_t> ends_;  // samples of the sources up to and with this one
  std::optional<Blend> blend_;
  int64_t seq_len_, samples_per_epoch_ = 0;
  uint64_t seed_;
  bool shuffle_;
  int64_t vocab_size_;
  Fim fim_;
};

}  // namespace dsv3
