#pragma once
// Words to ids by byte pair encoding: the pair that was merged first in training is merged first.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/data/tokenizer_json.h"

namespace dsv3 {

// Immutable, shared by threads; each brings a Memory.
class Bpe {
 public:
  // Words seen before with their ids, and room to merge in.
  class Memory {
   public:
    Memory();
    ~Memory();
    Memory(Memory&& other) noexcept;
    Memory& operator=(Memory&&) = delete;

   private:
    friend class Bpe;
    struct State;
    std::unique_ptr<State> state_;
  };

  explicit Bpe(const TokenizerSpec& spec);

  // Appends the ids of a word, which is bytes, to out. Time n log n for n bytes; beyond out, memory is
  // bounded.
  void encode(std::string_view word, Memory& memory, std::vector<int32_t>& out) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id in the upper half, right id in the lower
    uint32_t rank = 0;
    int32_t id = 0;
  };
  static constexpr uint64_t kNoPair = UINT64_MAX;
  struct Symbol;

  const Merge* find(int32_t left, int32_t right) const;
  void merge_short(std::string_view word, std::vector<int32_t>& out) const;
  void merge_whole(std::string_view word, Memory::State& state, std::vector<int32_t>& out) const;
  void merge_long(std::string_view word, Memory::State& state, std::vector<int32_t>& out) const;

  std::array<int32_t, 256> byte_ids_{};
  std::vector<uint32_t> lengths_;  // bytes of a token, by id
  std::vector<Merge> merges_;      // open addressing, a power of two
  // Only with ignore_merges: words that are tokens, as entries of the same table that a thread has for words
  // it has seen.
  bool ignore_merges_ = false;
  struct Words;
  std::shared_ptr<const Words> tokens_;
};

}  // namespace dsv3
