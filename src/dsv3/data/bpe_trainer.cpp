#include "dsv3/data/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>
#include <unordered_map>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/data/tokenizer_json.h"

namespace dsv3 {
namespace {

// A pair of neighbours: left id in the upper half, right id in the lower.
using Pair = uint64_t;
constexpr Pair kNoPair = UINT64_MAX;
Pair make_pair(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

// All words behind each other as symbols, with a border before and behind each. A symbol that is made of
// several ones spans their places: its id stands at the first.
class Symbols {
 public:
  static constexpr int32_t kBorder = -1, kInside = -2;

  explicit Symbols(const WordCounts& words) {
    const uint64_t size = words.bytes() + words.size() + 1;
    if (size > std::numeric_limits<uint32_t>::max()) {
      throw RunError("tokenizer train", "more than 4 GB of different words", "train on less text");
    }
    ids_.reserve(size);
    word_.reserve(size);
    counts_.reserve(words.size());
    std::array<int32_t, 256> rank_of_byte{};
    for (int32_t rank = 0; rank < 256; ++rank) rank_of_byte[byte_at_rank(rank)] = rank;
    add(kBorder);
    words.for_each([&](const WordCounts::Word& word) {
      for (const char c : word.text()) add(rank_of_byte[static_cast<unsigned char>(c)]);
      add(kBorder);
      counts_.push_back(word.count);
    });
    span_.assign(ids_.size(), 1);
  }

  uint32_t size() const { return static_cast<uint32_t>(ids_.size()); }
  int32_t id(uint32_t at) const { return ids_[at]; }
  uint32_t next(uint32_t at) const { return at + span_[at]; }
  uint32_t previous(uint32_t at) const { return at - span_[at - 1]; }
  int64_t count(uint32_t at) const { return counts_[word_[at]]; }  // of the word; at is no border

  // The symbol at `at` and the next one become one.
  void merge(uint32_t at, int32_t id) {
    const uint32_t right = next(at), span = span_[at] + span_[right];
    ids_[at] = id;
    ids_[right] = kInside;
    span_[at] = span_[at + span - 1] = span;
  }

 private:
  void add(int32_t id) {
    ids_.push_back(id);
    word_.push_back(static_cast<uint32_t>(counts_.size()));
  }

  std::vector<int32_t> ids_;
  std::vector<uint32_t> span_;  // of a symbol, at its first and at its last place
  std::vector<uint32_t> word_;
  std::vector<int64_t> counts_;
};

struct PairInfo {
  Pair pair = kNoPair;
  int64_t count = 0;
  std::vector<uint32_t> places;  // of left symbols; some may have been merged away since
  size_t touched_by = 0;         // the last merge that made one
};

// Pairs by open addressing.
class PairTable {
 public:
  // The pair's number; makes one without counts when there is none.
  uint32_t number_of(Pair pair) {
    if (2 * (pairs_.size() + 1) > slots_.size()) grow();
    uint32_t& slot = find(pair);
    if (slot == kFree) {
      slot = static_cast<uint32_t>(pairs_.size());
      pairs_.emplace_back().pair = pair;
    }
    return slot;
  }
  PairInfo& operator[](uint32_t number) { return pairs_[number]; }
  uint32_t size() const { return static_cast<uint32_t>(pairs_.size()); }

 private:
  static constexpr uint32_t kFree = UINT32_MAX;

  uint32_t& find(Pair pair) {
    uint64_t hash = pair * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
    for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1))
      if (slots_[at] == kFree || pairs_[slots_[at]].pair == pair) return slots_[at];
  }
  void grow() {
    slots_.assign(std::max<size_t>(2 * slots_.size(), 1 << 12), kFree);
    for (uint32_t i = 0; i < pairs_.size(); ++i) find(pairs_[i].pair) = i;
  }

  std::vector<PairInfo> pairs_;
  std::vector<uint32_t> slots_;  // numbers of pairs
};

// A pair with the count that it had when it was put on the heap.
struct Candidate {
  int64_t count;
  Pair pair;
  uint32_t number;
  // The heap's top is the largest: the highest count, then the smallest ids.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Learner {
 public:
  Learner(const WordCounts& words, const BpeTrainerOptions& options) : options_(options), symbols_(words) {
    for (int32_t rank = 0; rank < 256; ++rank) {
      out_.tokens.emplace_back(1, static_cast<char>(byte_at_rank(rank)));
      ids_.emplace(out_.tokens.back(), rank);
    }
    for (uint32_t at = 1; at + 1 < symbols_.size(); ++at) {
      if (symbols_.id(at) >= 0 && symbols_.id(at + 1) >= 0)
        add(symbols_.id(at), symbols_.id(at + 1), symbols_.count(at), at);
    }
    push_touched();
  }

  LearnedBpe run() {
    while (static_cast<int64_t>(out_.tokens.size()) < options_.num_tokens && !heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      PairInfo& info = pairs_[top.number];
      if (info.places.empty()) continue;  // merged, through another entry of the heap
      if (info.count != top.count) {
        if (info.count > 0) {
          heap_.push({info.count, top.pair, top.number});
        } else {
          info.places = {};
        }
        continue;
      }
      if (info.count < std::max<int64_t>(options_.min_frequency, 1)) break;
      const auto left = static_cast<int32_t>(top.pair >> 32);
      const auto right = static_cast<int32_t>(static_cast<uint32_t>(top.pair));
      const std::string text = out_.tokens[left] + out_.tokens[right];
      std::vector<uint32_t> places = std::exchange(info.places, {});
      if (options_.forbidden.contains(text)) continue;
      const auto [found, is_new] = ids_.emplace(text, static_cast<int32_t>(out_.tokens.size()));
      if (is_new) out_.tokens.push_back(text);
      out_.merges.push_back({left, right});
      merge(left, right, found->second, std::move(places));
      push_touched();
    }
    keep_last_of_each();
    return std::move(out_);
  }

 private:
  // A pair comes up at a place of a word that counts so often.
  void add(int32_t left, int32_t right, int64_t count, uint32_t place) {
    if (out_.tokens[left].size() + out_.tokens[right].size() > kMaxLearnedBytes) return;
    const uint32_t number = pairs_.number_of(make_pair(left, right));
    PairInfo& info = pairs_[number];
    info.count += count;
    info.places.push_back(place);
    if (std::exchange(info.touched_by, out_.merges.size() + 1) != out_.merges.size() + 1)
      touched_.push_back(number);
  }
  void subtract(int32_t left, int32_t right, int64_t count) {
    if (out_.tokens[left].size() + out_.tokens[right].size() > kMaxLearnedBytes) return;
    pairs_[pairs_.number_of(make_pair(left, right))].count -= count;
  }

  void merge(int32_t left, int32_t right, int32_t id, std::vector<uint32_t> places) {
    // From left to right, since of overlapping pairs ("aaa") the first is merged.
    if (!std::ranges::is_sorted(places)) std::ranges::sort(places);
    for (const uint32_t at : places) {
      if (symbols_.id(at) != left || symbols_.id(symbols_.next(at)) != right) continue;
      const int64_t count = symbols_.count(at);
      const uint32_t before = symbols_.previous(at);
      symbols_.merge(at, id);
      const int32_t id_before = symbols_.id(before), id_behind = symbols_.id(symbols_.next(at));
      if (id_before >= 0) {
        subtract(id_before, left, count);
        add(id_before, id, count, before);
      }
      if (id_behind >= 0) {
        subtract(right, id_behind, count);
        add(id, id_behind, count, at);
      }
    }
  }

  void push_touched() {
    for (const uint32_t number : touched_) {
      const PairInfo& info = pairs_[number];
      if (info.count > 0) heap_.push({info.count, info.pair, number});
    }
    touched_.clear();
  }

  // A pair that was merged twice has the rank of the last time, which is what readers of the file do with it.
  void keep_last_of_each() {
    std::unordered_set<Pair> seen;
    std::vector<LearnedBpe::Merge> kept;
    for (auto merge = out_.merges.rbegin(); merge != out_.merges.rend(); ++merge)
      if (seen.insert(make_pair(merge->left, merge->right)).second) kept.push_back(*merge);
    std::ranges::reverse(kept);
    out_.merges = std::move(kept);
  }

  const BpeTrainerOptions& options_;
  Symbols symbols_;
  PairTable pairs_;
  std::vector<uint32_t> touched_;  // numbers of pairs that came up since the last push_touched()
  std::priority_queue<Candidate> heap_;
  std::unordered_map<std::string, int32_t> ids_;  // of tokens
  LearnedBpe out_;
};

}  // namespace

LearnedBpe learn_bpe(const WordCounts& words, const BpeTrainerOptions& options) {
  return Learner(words, options).run();
}

}  // namespace dsv3
