#include "dsv3/convert/checked_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dsv3/base/error.h"

namespace dsv3 {

CheckedFile::CheckedFile(const std::filesystem::path& path, const FileHashes* hashes)
    : InputFile(path), hashes_(hashes) {
  if (hashes_ == nullptr) return;
  if (hashes_->blocks.size() != num_blocks(hashes_->size)) throw std::logic_error("CheckedFile: odd hashes");
  if (size() != hashes_->size) {
    throw InputError(this->path(), "",
                     fmt::format("{} bytes, {} has {}", size(), kManifestName, hashes_->size),
                     "it was changed or cut off after it was written");
  }
  verified_ = std::vector<std::atomic<uint64_t>>((hashes_->blocks.size() + 63) / 64);
}

bool CheckedFile::is_verified(uint64_t block) const {
  return (verified_[block / 64].load(std::memory_order_acquire) >> block % 64 & 1) != 0;
}

void CheckedFile::verify(uint64_t block, std::span<const std::byte> bytes) const {
  const uint64_t begin = block * kManifestBlock;
  if (hash_bytes(bytes) != hashes_->blocks[block]) {
    throw InputError(path(), fmt::format("bytes {} to {}", begin, begin + bytes.size()),
                     fmt::format("differ from {}", kManifestName));
  }
  verified_[block / 64].fetch_or(uint64_t{1} << block % 64, std::memory_order_release);
}

void CheckedFile::read(std::span<std::byte> out, uint64_t offset) const {
  const bool inside = offset <= size() && out.size() <= size() - offset;
  if (hashes_ == nullptr || !inside) return InputFile::read(out, offset);  // it says what is wrong
  while (!out.empty()) {
    const uint64_t block = offset / kManifestBlock, begin = block * kManifestBlock;
    const uint64_t end = std::min(begin + kManifestBlock, size());
    const auto part = out.first(std::min<uint64_t>(out.size(), end - offset));
    if (part.size() < end - begin) {
      read_part(block, part, offset);
    } else {
      InputFile::read(part, offset);
      if (!is_verified(block)) verify(block, part);
    }
    out = out.subspan(part.size());
    offset += part.size();
  }
}

void CheckedFile::read_part(uint64_t block, std::span<std::byte> out, uint64_t offset) const {
  const uint64_t begin = block * kManifestBlock;
  {
    const std::lock_guard lock(mutex_);
    if (block != last_block_ && !is_verified(block)) {
      last_block_ = UINT64_MAX;  // until all of its bytes are there and right
      last_.resize(std::min(kManifestBlock, size() - begin));
      InputFile::read(last_, begin);
      verify(block, last_);
      last_block_ = block;
    }
    if (block == last_block_) {
      std::memcpy(out.data(), last_.data() + (offset - begin), out.size());
      return;
    }
  }
  InputFile::read(out, offset);
}

}  // namespace dsv3
