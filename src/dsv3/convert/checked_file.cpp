#include "dsv3/convert/checked_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

// Blocks that were read for a part of them: short reads follow each other. Few for the whole process, since a
// large model has hundreds of files.
class BlockCache {
 public:
  using Bytes = std::shared_ptr<std::vector<std::byte>>;

  Bytes find(const CheckedFile* file, uint64_t block) {
    const std::lock_guard lock(mutex_);
    const auto it = std::ranges::find_if(
        entries_, [&](const Entry& entry) { return entry.file == file && entry.block == block; });
    if (it == entries_.end()) return nullptr;
    std::rotate(entries_.begin(), it, it + 1);
    return entries_.front().bytes;
  }
  void keep(const CheckedFile* file, uint64_t block, Bytes bytes) {
    const std::lock_guard lock(mutex_);
    if (entries_.size() == kBlocks) entries_.pop_back();
    entries_.insert(entries_.begin(), {file, block, std::move(bytes)});
  }
  // Memory for another block: that of the least used one, which is as good as new memory and was touched
  // before.
  std::vector<std::byte> room() {
    const std::lock_guard lock(mutex_);
    if (entries_.size() < kBlocks || entries_.back().bytes.use_count() > 1) return {};
    std::vector<std::byte> bytes = std::move(*entries_.back().bytes);
    entries_.pop_back();
    return bytes;
  }
  void forget(const CheckedFile* file) {
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&](const Entry& entry) { return entry.file == file; });
  }

 private:
  static constexpr size_t kBlocks = 8;
  struct Entry {
    const CheckedFile* file;
    uint64_t block;
    Bytes bytes;
  };
  std::mutex mutex_;
  std::vector<Entry> entries_;  // the last used first
};

BlockCache& block_cache() {
  static BlockCache cache;
  return cache;
}

}  // namespace

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

CheckedFile::~CheckedFile() { block_cache().forget(this); }

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
  BlockCache::Bytes bytes;
  {
    const std::lock_guard lock(mutex_);
    bytes = block_cache().find(this, block);
    if (!bytes && !is_verified(block)) {
      std::vector<std::byte> whole = block_cache().room();
      whole.resize(std::min(kManifestBlock, size() - begin));
      InputFile::read(whole, begin);
      verify(block, whole);
      bytes = std::make_shared<std::vector<std::byte>>(std::move(whole));
      block_cache().keep(this, block, bytes);
    }
  }
  if (!bytes) return InputFile::read(out, offset);
  std::memcpy(out.data(), bytes->data() + (offset - begin), out.size());
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
