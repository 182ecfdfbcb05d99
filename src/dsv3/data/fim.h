#pragma once
// Fill-in-the-middle (FIM): part of the documents are reordered, so that a model learns to write what stands
// between two texts.

#include <cstdint>
#include <span>

#include "dsv3/config/run_config.h"

namespace dsv3 {

struct Fim {
  double rate = 0;     // share of the documents that are reordered, 0 to 1
  int64_t begin = -1;  // ids of the three sentinels
  int64_t hole = -1;
  int64_t end = -1;
  int64_t eos = -1;  // ends a document
};

// Reorders, with probability fim.rate, the part of a document that lies in one sample, in place:
//   text [eos]  ->  <begin> prefix <hole> suffix <end> middle [eos]
// where text is cut in three at two places drawn uniformly (parts may be empty). Source: arXiv 2412.19437,
// section 4.1 (PSM, at document level). The length stays: the last three tokens of the text make room for the
// sentinels before it is cut, so every other document stays where it is.
//
// key decides everything. Returns whether it reordered; parts of fewer than kFewestFimTokens tokens (eos
// aside) and those that hold a sentinel already stay as they are.
inline constexpr int64_t kFewestFimTokens = 6;
bool fill_in_the_middle(std::span<int64_t> part, const Fim& fim, uint64_t key);

// What [data] asks for; rate 0 opens no file. The sentinels are those of data.tokenizer by the names that
// DeepSeek (<｜fim▁begin｜>, hole, end), Qwen or StarCoder gives them; eos is what PREFIX.json of the
// training files says, else the tokenizer. UsageError: no tokenizer, one without sentinels or without eos.
// InputError: a PREFIX.json that names another eos than the files before. That the files are of this
// tokenizer is require_one_tokenizer()'s to see.
Fim find_fim(const DataConfig& data);

}  // namespace dsv3
