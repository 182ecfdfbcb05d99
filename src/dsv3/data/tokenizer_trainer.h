#pragma once
// Text to a tokenizer.json: what `dsv3 tokenizer train` does.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/data/word_counts.h"

namespace dsv3 {

struct TrainTokenizerOptions {
  // What is read, and how, as PrepareOptions says it: a file of .txt or .md is a text by itself, and so is a
  // line.
  std::vector<std::filesystem::path> inputs;
  std::string format = "auto";
  std::string glob = {};
  // A folder, made when it is not there, for tokenizer.json and tokenizer_config.json; or a tokenizer.json in
  // one.
  std::filesystem::path out = {};
  int64_t vocab_size = 0;     // special tokens, 256 bytes and learned tokens
  int64_t min_frequency = 2;  // a pair that occurs less often becomes no token
  CountOptions count = {};
  std::string pattern = "v3";  // how text is split into words: "v3" (DeepSeek-V3's) or "gpt2"
  // Special tokens in the order of their ids, which begin at 0; those that are empty are none. bos and eos
  // are put around nothing, tokenizer_config.json says which they are.
  std::string bos = "<｜begin▁of▁sentence｜>", eos = "<｜end▁of▁sentence｜>", pad = "<｜▁pad▁｜>";
  std::vector<std::string> special = {};  // further ones
};

struct TrainTokenizerSummary {
  std::filesystem::path file;
  int64_t vocab_size = 0;  // less than asked for when no pair was frequent enough
  int64_t merges = 0;
  uint64_t bytes = 0;     // of text
  int64_t bad_lines = 0;  // skipped
  int64_t words = 0;      // different ones
  double seconds = 0;
};

// Learns a byte-level BPE (learn_bpe()) and writes it as `tokenizers` does: ids are those of the special
// tokens, of the bytes in the order of their letters, of learned tokens. A token that is spelled like a
// special one is not learned. Memory grows with the different words, see WordCounts and learn_bpe(), not with
// the text.
//
// UsageError naming the flag: what list_text_inputs refuses, an input that is one of the two files; a
// vocabulary too small for bytes and special tokens or larger than
// kMaxTokens; no eos; a special token that is there twice, is no UTF-8, is longer than kMaxAddedBytes, or is
// spelled like a byte. InputError: what count_words refuses; no text at all. Nothing is written then.
TrainTokenizerSummary train_tokenizer(const TrainTokenizerOptions& options);

}  // namespace dsv3
