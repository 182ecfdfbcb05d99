#pragma once
// The bytes of a pickle. For the parser of pickles alone.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "dsv3/base/file.h"

namespace dsv3 {

// The bytes of a pickle, all at once or a piece at a time.
class PickleBytes {
 public:
  explicit PickleBytes(std::span<const std::byte> all) : size_(all.size()), window_(all) {}
  PickleBytes(const InputFile& file, uint64_t begin, uint64_t size)
      : file_(&file), begin_(begin), size_(size) {}

  uint64_t size() const { return size_; }
  uint64_t position() const { return loaded() - window_.size(); }
  uint64_t left() const { return size_ - position(); }
  // Fills out; the caller has asked left().
  void take(std::span<std::byte> out) {
    while (!out.empty()) {
      if (window_.empty()) refill();
      const size_t n = std::min(out.size(), window_.size());
      std::memcpy(out.data(), window_.data(), n);
      out = out.subspan(n);
      window_ = window_.subspan(n);
    }
  }
  // Past some bytes; the caller has asked left(). Those of a file are not read.
  void skip(uint64_t size) {
    const auto here = static_cast<size_t>(std::min<uint64_t>(size, window_.size()));
    window_ = window_.subspan(here);
    next_ += size - here;
  }

 private:
  uint64_t loaded() const { return file_ == nullptr ? size_ : next_; }
  void refill() {
    buffer_.resize(std::min<uint64_t>(1 << 16, size_ - next_));
    file_->read(buffer_, begin_ + next_);
    next_ += buffer_.size();
    window_ = buffer_;
  }

  const InputFile* file_ = nullptr;
  uint64_t begin_ = 0, size_;
  uint64_t next_ = 0;  // of the file's bytes
  std::vector<std::byte> buffer_;
  std::span<const std::byte> window_;
};

}  // namespace dsv3
