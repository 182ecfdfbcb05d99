#include "dsv3/data/word_counts.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/data/text_work.h"
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

// Hands the pieces of a file of text to add, as jobs: text is the piece and the context behind it,
// piece.bytes the piece alone.
bool read_pieces(const TextInput& input, const TextWork::Add& add) {
  const std::unique_ptr<ByteSource> bytes = open_bytes(input.path, input.compression);
  const auto name = std::make_shared<const std::string>(bytes->name());
  std::string text;
  uint64_t at = 0;  // of text, in the file
  for (bool ended = false; !ended || !text.empty();) {
    while (!ended && text.size() < 2 * kPiece + kAhead) {
      const std::string_view next = bytes->next();
      ended = next.empty();
      text += next;
    }
    if (text.empty()) break;
    const size_t cut = find_cut(text, std::min<size_t>(kPiece, text.size()));
    TextJob job{
        .file = name, .text = text.substr(0, context_end(text, cut)), .begin = TextPlace{.offset = at}};
    job.piece.bytes = cut;
    add(std::move(job));
    text.erase(0, cut);
    at += cut;
  }
  return at > 0;
}

// One thread's part of the work.
class Counter {
 public:
  Counter(const PreTokenizer& splitter, const std::string& text_key)
      : splitter_(splitter), lines_(text_key) {}

  void count(TextJob& job) {
    if (job.kind == TextJob::Kind::piece) {
      count(job.text, job.piece.bytes, *job.file, job.begin->offset);
    } else {
      job.piece.bytes = job.text.size();
      lines_.for_each(job, [&](std::string_view text) { count(text, text.size(), "text", 0); });
    }
    job.text = std::string();
  }

  WordCounts words;
  uint64_t bytes = 0;  // of text

 private:
  // The words that begin in the first `size` bytes of text, cut there; text stands at `at` of `file`.
  void count(std::string_view text, size_t size, std::string_view file, uint64_t at) {
    if (const size_t good = unicode::valid_utf8_prefix(text); good != text.size()) {
      throw InputError(file, fmt::format("byte {}", at + good), "is not UTF-8",
                       "convert it, for example with iconv");
    }
    const char* const cut = text.data() + size;
    Regex::Budget budget(text.size());
    splitter_.split(text, memory_, budget, [&](std::string_view word) {
      if (word.data() >= cut) return;
      words.add(word.substr(0, static_cast<size_t>(cut - word.data())), 1);
    });
    bytes += size;
  }

  const PreTokenizer& splitter_;
  PreTokenizer::Memory memory_;
  LineTexts lines_;
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

CountedText count_words(const std::vector<TextInput>& inputs, const PreTokenizer& splitter,
                        const CountOptions& options) {
  uint64_t done = 0, total = 0;
  for (const TextInput& input : inputs) {
    const bool is_known = input.path != "-" && input.compression == Compression::none;
    const auto stamp = is_known ? file_stamp(input.path) : std::nullopt;
    if (!stamp) {
      total = 0;
      break;
    }
    total += static_cast<uint64_t>(stamp->size);
  }
  std::vector<std::shared_ptr<Counter>> counters;
  BadLines bad(options.max_bad, options.on_bad_line);
  const auto read = [](const TextInput& input, const TextPlace& from, const TextWork::Add& add) {
    return input.format == TextFormat::text ? read_pieces(input, add) : read_lines(input, from, add);
  };
  const auto make_worker = [&] {
    counters.push_back(std::make_shared<Counter>(splitter, options.text_key));
    return [counter = counters.back()](TextJob& job) { counter->count(job); };
  };
  const auto use = [&](const TextJob& job) {
    bad.add(job);
    done += job.piece.bytes;
    if (options.progress) options.progress(done, total);
  };
  work_on_texts(inputs, {}, options.threads, {.read = read, .make_worker = make_worker, .use = use});
  CountedText out{.bad_lines = bad.count()};
  for (const auto& counter : counters) {
    out.words.absorb(counter->words);
    out.bytes += counter->bytes;
  }
  return out;
}

}  // namespace dsv3
