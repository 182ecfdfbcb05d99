#pragma once
// A part of a file as text for nlohmann's parsers, a piece in memory at a time.

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {

// Bytes [begin, end) of a file. InputError at a NUL: the lexer takes one for the end of the text.
class TextPieces {
 public:
  TextPieces(const InputFile& file, uint64_t begin, uint64_t end) : file_(file), next_(begin), end_(end) {}

  // The next piece; empty at the end. It lives until the next call.
  std::string_view next_piece() {
    const size_t size = std::min<uint64_t>(sizeof buffer_, end_ - next_);
    file_.read(std::as_writable_bytes(std::span(buffer_, size)), next_);
    if (const void* nul = std::memchr(buffer_, 0, size)) {
      throw InputError(file_.path(),
                       fmt::format("byte {}", next_ + (static_cast<const char*>(nul) - buffer_)),
                       "not valid JSON: NUL byte");
    }
    next_ += size;
    return {buffer_, size};
  }

 private:
  const InputFile& file_;
  uint64_t next_, end_;
  char buffer_[1 << 16];
};

// An input iterator over all pieces; a default one is the end.
class TextIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  TextIterator() = default;
  explicit TextIterator(TextPieces& pieces) : pieces_(&pieces), piece_(pieces.next_piece()) {}
  char operator*() const { return piece_.front(); }
  TextIterator& operator++() {
    piece_.remove_prefix(1);
    if (piece_.empty()) piece_ = pieces_->next_piece();
    return *this;
  }
  bool operator==(const TextIterator& other) const { return piece_.empty() == other.piece_.empty(); }

 private:
  TextPieces* pieces_ = nullptr;
  std::string_view piece_;
};

}  // namespace dsv3
