#pragma once
// Text to words: the steps of a tokenizer.json, each of which cuts the pieces that the one before left.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/data/regex.h"
#include "dsv3/data/tokenizer_json.h"

namespace dsv3 {

// Immutable, shared by threads; each brings a Memory.
class PreTokenizer {
 public:
  struct Memory {
    Regex::Memory regex = {};
    std::vector<std::string> prefixed = {};  // a step's piece with a space before it
  };
  using Emit = std::function<void(std::string_view word)>;

  // InputError{file, step.field}: a pattern that is not supported.
  PreTokenizer(std::vector<PreTokenizerStep> steps, std::string_view file);

  // Calls emit with the words of text, in order, none empty. text is valid UTF-8; a word is valid until emit
  // returns. InputError naming a pattern that uses up the budget, see Regex::find(); then some words have
  // been emitted.
  void split(std::string_view text, Memory& memory, Regex::Budget& budget, const Emit& emit) const;

 private:
  struct Run;
  void step(size_t index, std::string_view piece, Run& run) const;
  template <class Matches>
  void cut(size_t index, std::string_view piece, Run& run, Matches matches) const;

  std::vector<PreTokenizerStep> steps_;
  std::vector<Regex> regexes_;    // of the steps that have a pattern, in order
  std::vector<size_t> regex_of_;  // by step
};

}  // namespace dsv3
