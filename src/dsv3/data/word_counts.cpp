#include "dsv3/data/word_counts.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

constexpr size_t kBlock = 1 << 20;      // bytes of words that are allocated at once
constexpr uint64_t kPiece = 256 << 10;  // where the search for a piece's end begins
constexpr uint64_t kAhead = 8;          // bytes behind a cut that are looked at: two characters

uint32_t hash_of(std::string_view word) {
  return static_cast<uint32_t>(XXH3_64bits(word.data(), word.size()));
}

bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Whether a character that starts with this byte is surely no white space: the others start with C2, E1 to
// E3, or are ASCII.
bool starts_no_space(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte > ' ' && byte < 0x7F) || (byte >= 0xC3 && byte <= 0xE0) || byte >= 0xE4;
}

// Whether a word ends before text[at] whatever stands before and behind: at a line's begin, and at the last
// space before a letter, which belongs to the word behind it.
bool is_word_end(std::string_view text, size_t at) {
  if (at == 0 || at + 1 >= text.size()) return false;
  return (text[at] == ' ' && is_ascii_letter(text[at + 1])) ||
         (text[at - 1] == '\n' && starts_no_space(text[at]));
}

bool is_inside_character(std::string_view text, size_t at) {
  return at < text.size() && (text[at] & 0xC0) == 0x80;
}

// Where the piece ends whose end is looked for from text[from] on; text holds kPiece and kAhead bytes more,
// or ends with the file.
size_t find_cut(std::string_view text, size_t from) {
  for (size_t at = from; at < std::min(from + kPiece, text.size()); ++at)
    if (is_word_end(text, at)) return at;
  if (text.size() <= from + kPiece) return text.size();  // the file's rest is short enough
  size_t at = from;
  while (at < from + 3 && is_inside_character(text, at)) ++at;
  return at;
}

// Text behind a cut that patterns look at: one character, or a space and a letter. text.size() at most.
size_t context_end(std::string_view text, size_t cut) {
  size_t at = cut;
  for (int characters = 0; characters < 2 && at < text.size(); ++characters) {
    ++at;
    while (is_inside_character(text, at)) ++at;
  }
  return std::min(at, text.size());
}

// One thread's part of the work.
class PieceCounter {
 public:
  explicit PieceCounter(const PreTokenizer& splitter) : splitter_(splitter) {}

  // Counts piece number `index` of a file that had `size` bytes.
  void count(const std::filesystem::path& path, uint64_t size, uint64_t index) {
    const InputFile file(path);
    if (file.size() != size) throw InputError(file.path(), "size", "changed while it was read");
    // One byte before, since a line's begin is known by it.
    const uint64_t first = index * kPiece, begin = index == 0 ? 0 : first - 1;
    text_.resize(std::min(first + 2 * kPiece + kAhead, size) - begin);
    file.read(std::as_writable_bytes(std::span(text_)), begin);
    const size_t from = index == 0 ? 0 : find_cut(text_, first - begin);
    const size_t to = find_cut(text_, first + kPiece - begin);
    const size_t end = context_end(text_, to);
    const std::string_view piece = std::string_view(text_).substr(from, end - from);
    if (const size_t good = unicode::valid_utf8_prefix(piece); good != piece.size()) {
      throw InputError(file.path(), fmt::format("byte {}", begin + from + good), "is not UTF-8",
                       "convert it, for example with iconv");
    }
    const char* const cut = text_.data() + to;
    splitter_.split(piece, memory_, [&](std::string_view word) {
      if (word.data() >= cut) return;
      counts.add(word.substr(0, static_cast<size_t>(cut - word.data())), 1);
    });
  }

  WordCounts counts;

 private:
  const PreTokenizer& splitter_;
  PreTokenizer::Memory memory_;
  std::string text_;
};

struct FileSize {
  uint64_t size = 0, first_piece = 0;
};

}  // namespace

void WordCounts::add(std::string_view word, int64_t count) {
  const uint32_t hash = hash_of(word);
  Word& found = find(word, hash);
  if (found.length != 0) {
    found.count += count;
    return;
  }
  found = {keep(word), static_cast<uint32_t>(word.size()), hash, count};
  bytes_ += word.size();
  if (2 * ++size_ > table_.size()) grow();
}

void WordCounts::absorb(WordCounts& other) {
  other.for_each([&](const Word& word) { add(word.text(), word.count); });
  other = WordCounts();
}

WordCounts::Word& WordCounts::find(std::string_view word, uint32_t hash) {
  for (size_t at = hash & (table_.size() - 1);; at = (at + 1) & (table_.size() - 1)) {
    Word& entry = table_[at];
    if (entry.length == 0 || (entry.hash == hash && entry.text() == word)) return entry;
  }
}

const char* WordCounts::keep(std::string_view word) {
  if (word.size() > left_) {
    left_ = std::max(kBlock, word.size());
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(left_));
    room_ = blocks_.back().get();
  }
  std::memcpy(room_, word.data(), word.size());
  left_ -= word.size();
  return std::exchange(room_, room_ + word.size());
}

void WordCounts::grow() {
  std::vector<Word> old(2 * table_.size());
  old.swap(table_);
  for (const Word& word : old) {
    if (word.length == 0) continue;
    size_t at = word.hash & (table_.size() - 1);
    while (table_[at].length != 0) at = (at + 1) & (table_.size() - 1);
    table_[at] = word;
  }
}

CountedText count_words(const std::vector<std::filesystem::path>& files, const PreTokenizer& splitter,
                        int threads, const CountProgress& progress) {
  CountedText out;
  std::vector<FileSize> sizes;
  uint64_t num_pieces = 0;
  for (const std::filesystem::path& path : files) {
    const uint64_t size = InputFile(path).size();
    sizes.push_back({size, num_pieces});
    out.bytes += size;
    num_pieces += (size + kPiece - 1) / kPiece;
  }

  std::atomic<uint64_t> next = 0;
  std::mutex mutex;  // of what follows
  uint64_t done = 0, failed_piece = num_pieces;
  std::exception_ptr failure;
  const auto run = [&](PieceCounter& counter) {
    for (uint64_t piece = next++; piece < num_pieces; piece = next++) {
      // The last file that begins at or before the piece; empty files have none.
      const auto file = std::ranges::upper_bound(sizes, piece, {}, &FileSize::first_piece) - 1;
      const auto number = static_cast<size_t>(file - sizes.begin());
      try {
        counter.count(files[number], file->size, piece - file->first_piece);
      } catch (...) {
        // Pieces are taken in order, so the first error of the files is found in any case; none behind it is
        // worth a start.
        const std::lock_guard lock(mutex);
        if (piece < failed_piece) {
          failed_piece = piece;
          failure = std::current_exception();
        }
        next = num_pieces;
        return;
      }
      const std::lock_guard lock(mutex);
      done += std::min(kPiece, file->size - (piece - file->first_piece) * kPiece);
      if (progress) progress(done, out.bytes);
    }
  };

  std::vector<PieceCounter> counters;
  const auto wanted = std::min<uint64_t>(static_cast<uint64_t>(std::max(threads, 1)), num_pieces);
  counters.reserve(wanted);
  for (uint64_t i = 0; i < wanted; ++i) counters.emplace_back(splitter);
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < counters.size(); ++i) others.emplace_back([&, i] { run(counters[i]); });
    if (!counters.empty()) run(counters.front());
  }
  if (failure) std::rethrow_exception(failure);
  for (PieceCounter& counter : counters) out.words.absorb(counter.counts);
  return out;
}

}  // namespace dsv3
