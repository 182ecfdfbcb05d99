#include "dsv3/convert/checked_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace fs = std::filesystem;

CheckedFile::CheckedFile(const fs::path& path, const FileHashes* hashes) : InputFile(path), hashes_(hashes) {
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

bool lies_in_folder(const fs::path& folder, const std::string& name) {
  const auto is_inside = [](const fs::path& path, const fs::path& outer) {
    return std::ranges::mismatch(outer, path).in1 == outer.end();
  };
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  const fs::path target = fs::canonical(folder / name, error);
  // In a Hugging Face cache, snapshots/HASH/NAME is a link to blobs/HASH two levels up; those are the
  // folder's own too.
  const bool cache = root.parent_path().filename() == "snapshots" &&
                     is_inside(target, root.parent_path().parent_path() / "blobs");
  return !error && (is_inside(target, root) || cache);
}

fs::path file_in_folder(const fs::path& folder, const std::string& name) {
  fs::path path = folder / name;
  std::error_code error;
  if (!fs::exists(path, error))
    throw InputError(path.string(), "", "no such file", "the checkpoint is incomplete");
  if (!lies_in_folder(folder, name))
    throw InputError(path.string(), "", "is a link out of the folder", "put the file itself there");
  return path;
}

std::unique_ptr<CheckedFile> open_in_folder(const fs::path& folder, const std::string& name,
                                            const std::optional<Manifest>& manifest) {
  const FileHashes* hashes = nullptr;
  if (manifest) {
    const auto listed = manifest->files.find(name);
    if (listed == manifest->files.end())
      throw InputError((folder / kManifestName).string(), name, "is not listed, the checkpoint uses it");
    hashes = &listed->second;
  }
  return std::make_unique<CheckedFile>(file_in_folder(folder, name), hashes);
}

}  // namespace dsv3
