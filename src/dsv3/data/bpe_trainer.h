#pragma once
// Learns the merges of a byte-level BPE from counted words. Source: Sennrich, Haddow, Birch, arXiv
// 1508.07909; in its choices equal to the library `tokenizers` 0.23.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "dsv3/data/word_counts.h"

namespace dsv3 {

struct BpeTrainerOptions {
  int64_t num_tokens = 256;   // bytes and learned tokens together, at least 256
  int64_t min_frequency = 2;  // a pair that occurs less often is not merged
  // Texts that no learned token may have.
  std::unordered_set<std::string> forbidden = {};
};

// Ids are places in tokens: first the 256 bytes in the order of their letters (byte_at_rank()), then what was
// learned, in order.
struct LearnedBpe {
  struct Merge {
    int32_t left = 0, right = 0;
  };
  std::vector<std::string> tokens;  // their bytes; no two are equal
  std::vector<Merge> merges;        // each pair once; what it makes is the token of both bytes
};

// A token has at most so many bytes: `tokenizers` has no such limit.
constexpr size_t kMaxLearnedBytes = 256;

// Merges the pair of neighbours that occurs most often in all words, of equal ones that with the smaller left
// id, then the smaller right id, until there are num_tokens or no pair is frequent enough. Pairs inside of a
// word are counted as `tokenizers` does: in "aaa" the pair (a, a) counts twice, a merged pair keeps its count
// should it come up again, and a token may be made by several pairs. The result depends on words alone, not
// on their order.
//
// Takes about 24 bytes for each byte of words.bytes(); Error when these are more than 4 GB.
LearnedBpe learn_bpe(const WordCounts& words, const BpeTrainerOptions& options);

}  // namespace dsv3
