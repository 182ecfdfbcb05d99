#include "dsv3/data/bpe.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <unordered_map>

namespace dsv3 {
namespace {

constexpr size_t kShort = 48;          // bytes up to which trying all pairs beats a heap
constexpr size_t kLongestKept = 128;   // bytes of a word that is worth keeping
constexpr size_t kMostKept = 1 << 16;  // words of a thread, about 5 MB
constexpr size_t kStretch = 1 << 16;   // bytes of a word that are merged at once; see merge_long

uint64_t hash_pair(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15;
  return pair ^ (pair >> 32);
}

}  // namespace

// Words with their ids, by open addressing; the strings and lists lie in two buffers.
struct Bpe::Words {
  struct Entry {
    uint32_t hash = 0, length = 0;  // length 0: free, since no word is empty
    uint32_t word = 0, ids = 0;     // where they begin; ids is the id itself when there is one
    uint32_t num_ids = 0;
  };
  std::vector<Entry> table = std::vector<Entry>(1 << 10);
  std::string words;
  std::vector<int32_t> ids;
  size_t count = 0;

  static uint32_t hash_of(std::string_view word) {
    return static_cast<uint32_t>(XXH3_64bits(word.data(), word.size()));
  }
  const Entry* find(std::string_view word, uint32_t hash) const {
    for (size_t at = hash & (table.size() - 1);; at = (at + 1) & (table.size() - 1)) {
      const Entry& entry = table[at];
      if (entry.length == 0) return nullptr;
      if (entry.hash == hash && entry.length == word.size() &&
          std::memcmp(words.data() + entry.word, word.data(), word.size()) == 0) {
        return &entry;
      }
    }
  }
  void append_ids(const Entry& entry, std::vector<int32_t>& out) const {
    if (entry.num_ids == 1) {
      out.push_back(static_cast<int32_t>(entry.ids));
    } else {
      out.insert(out.end(), ids.begin() + entry.ids, ids.begin() + entry.ids + entry.num_ids);
    }
  }
  // word is not in the table yet.
  void add(std::string_view word, uint32_t hash, const int32_t* first, size_t num_ids) {
    if (2 * ++count > table.size()) grow();
    Entry entry{hash, static_cast<uint32_t>(word.size()), static_cast<uint32_t>(words.size()),
                static_cast<uint32_t>(ids.size()), static_cast<uint32_t>(num_ids)};
    words += word;
    if (num_ids == 1) {
      entry.ids = static_cast<uint32_t>(*first);
    } else {
      ids.insert(ids.end(), first, first + num_ids);
    }
    place(entry);
  }
  void clear() {
    std::ranges::fill(table, Entry{});
    words.clear();
    ids.clear();
    count = 0;
  }

 private:
  void place(const Entry& entry) {
    size_t at = entry.hash & (table.size() - 1);
    while (table[at].length != 0) at = (at + 1) & (table.size() - 1);
    table[at] = entry;
  }
  void grow() {
    std::vector<Entry> old(2 * table.size());
    old.swap(table);
    for (const Entry& entry : old)
      if (entry.length != 0) place(entry);
  }
};

// A piece of a word that is one token so far.
struct Bpe::Symbol {
  int32_t id;
  int32_t previous, next;  // -1: none
};

struct Bpe::Memory::State {
  // Two symbols that can be merged; out of date when one of them has changed.
  struct Candidate {
    uint32_t rank;
    int32_t at;  // the left one
    uint64_t pair;
    // A heap's top is the largest: the lowest rank, then the leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  Words seen;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<int32_t> border;  // ids of the two tokens at a border, merged by themselves
};

Bpe::Memory::Memory() : state_(std::make_unique<State>()) {}
Bpe::Memory::~Memory() = default;
Bpe::Memory::Memory(Memory&& other) noexcept = default;

Bpe::Bpe(const TokenizerSpec& spec) : ignore_merges_(spec.ignore_merges) {
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(spec.vocab.size());
  auto tokens = std::make_shared<Words>();
  std::string bytes;
  lengths_.resize(static_cast<size_t>(spec.vocab_size));
  for (size_t i = 0; i < spec.vocab.size(); ++i) {
    ids.emplace(spec.vocab[i], spec.ids[i]);
    if (!token_bytes(spec.vocab[i], bytes)) continue;
    lengths_[static_cast<size_t>(spec.ids[i])] = static_cast<uint32_t>(bytes.size());
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = spec.ids[i];
    if (ignore_merges_) tokens->add(bytes, Words::hash_of(bytes), &spec.ids[i], 1);
  }
  tokens_ = std::move(tokens);

  const size_t num_merges = spec.merges.size() / 2;
  merges_.resize(std::bit_ceil(2 * num_merges + 2));
  std::string merged;
  for (size_t i = 0; i < num_merges; ++i) {
    const std::string_view left = spec.merges[2 * i], right = spec.merges[2 * i + 1];
    merged.assign(left);
    merged += right;
    const uint64_t pair = static_cast<uint64_t>(ids.at(left)) << 32 | static_cast<uint32_t>(ids.at(right));
    size_t at = hash_pair(pair) & (merges_.size() - 1);
    while (merges_[at].pair != kNoPair && merges_[at].pair != pair) at = (at + 1) & (merges_.size() - 1);
    // Of a pair that is there twice the last counts, as in `tokenizers`.
    merges_[at] = {pair, static_cast<uint32_t>(i), ids.at(merged)};
  }
}

const Bpe::Merge* Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  for (size_t at = hash_pair(pair) & (merges_.size() - 1);; at = (at + 1) & (merges_.size() - 1)) {
    if (merges_[at].pair == pair) return &merges_[at];
    if (merges_[at].pair == kNoPair) return nullptr;
  }
}

void Bpe::encode(std::string_view word, Memory& memory, std::vector<int32_t>& out) const {
  Memory::State& state = *memory.state_;
  if (word.size() == 1) {
    out.push_back(byte_ids_[static_cast<unsigned char>(word[0])]);
    return;
  }
  const uint32_t hash = Words::hash_of(word);
  if (ignore_merges_) {
    if (const Words::Entry* token = tokens_->find(word, hash)) return tokens_->append_ids(*token, out);
  }
  if (word.size() > kLongestKept) return merge_long(word, state, out);
  if (const Words::Entry* seen = state.seen.find(word, hash)) return state.seen.append_ids(*seen, out);
  const size_t begin = out.size();
  merge_whole(word, state, out);
  if (state.seen.count == kMostKept) state.seen.clear();
  state.seen.add(word, hash, out.data() + begin, out.size() - begin);
}

void Bpe::merge_short(std::string_view word, std::vector<int32_t>& out) const {
  int32_t ids[kShort];
  const Merge* next[kShort];  // of a symbol and the one behind it
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<unsigned char>(word[i])];
  for (size_t i = 0; i + 1 < count; ++i) next[i] = find(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = count;
    uint32_t rank = UINT32_MAX;
    for (size_t i = 0; i + 1 < count; ++i) {
      if (next[i] == nullptr || next[i]->rank >= rank) continue;
      rank = next[i]->rank;
      best = i;
    }
    if (best == count) break;
    ids[best] = next[best]->id;
    std::copy(ids + best + 2, ids + count, ids + best + 1);
    std::copy(next + best + 2, next + count, next + best + 1);
    --count;
    if (best > 0) next[best - 1] = find(ids[best - 1], ids[best]);
    if (best + 1 < count) next[best] = find(ids[best], ids[best + 1]);
  }
  out.insert(out.end(), ids, ids + count);
}

// A stretch at a time. What two stretches give, put together, is what both give as one just when the two
// tokens at their border stay what they are when they are merged by themselves: until the first merge across
// the border each side goes as if it were alone, and so do the parts of those two tokens, since no merge ever
// crosses the end of a token that stays, and the next merge among some neighbours is the one of least rank,
// leftmost, whatever there is elsewhere. Where they do not stay, tokens before the border are taken back.
void Bpe::merge_long(std::string_view word, Memory::State& state, std::vector<int32_t>& out) const {
  const size_t first = out.size();
  size_t begin = 0, end = 0;  // of the stretch
  size_t taken_back = 1;      // tokens, the next time
  while (begin < word.size()) {
    end = std::max(end, std::min(begin + kStretch, word.size()));
    const size_t border = out.size();
    merge_whole(word.substr(begin, end - begin), state, out);
    if (border > first) {
      const size_t left = lengths_[static_cast<size_t>(out[border - 1])];
      const size_t right = lengths_[static_cast<size_t>(out[border])];
      state.border.clear();
      merge_whole(word.substr(begin - left, left + right), state, state.border);
      if (!std::ranges::equal(state.border, std::span(out).subspan(border - 1, 2))) {
        out.resize(border);
        for (size_t i = 0; i < taken_back && out.size() > first; ++i) {
          begin -= lengths_[static_cast<size_t>(out.back())];
          out.pop_back();
        }
        taken_back *= 2;
        continue;
      }
    }
    begin = end;
    taken_back = 1;
  }
}

void Bpe::merge_whole(std::string_view word, Memory::State& state, std::vector<int32_t>& out) const {
  if (word.size() <= kShort) return merge_short(word, out);
  std::vector<Symbol>& symbols = state.symbols;
  std::vector<Memory::State::Candidate>& heap = state.heap;
  const int32_t count = static_cast<int32_t>(word.size());
  symbols.resize(word.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<unsigned char>(word[i])], i - 1, i + 1 < count ? i + 1 : -1};
  }
  heap.clear();
  const auto candidate = [&](int32_t left) {
    const int32_t right = symbols[left].next;
    const Merge* merge = right < 0 ? nullptr : find(symbols[left].id, symbols[right].id);
    if (merge == nullptr) return false;
    heap.push_back({merge->rank, left, merge->pair});
    return true;
  };
  for (int32_t i = 0; i < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    const auto [rank, at, pair] = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Symbol& left = symbols[at];
    // A symbol that went into its left neighbour has the id -1.
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const uint64_t now = static_cast<uint64_t>(left.id) << 32 | static_cast<uint32_t>(right.id);
    if (now != pair) continue;
    left.id = find(left.id, right.id)->id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = at;
    if (left.previous >= 0 && candidate(left.previous)) std::push_heap(heap.begin(), heap.end());
    if (candidate(at)) std::push_heap(heap.begin(), heap.end());
  }
  for (int32_t at = 0; at >= 0; at = symbols[at].next) out.push_back(symbols[at].id);
  if (symbols.size() > kStretch) {
    symbols = {};
    heap = {};
  }
}

}  // namespace dsv3
