#pragma once
// The files of a checkpoint folder: no link leads out of it, and their bytes are compared with manifest.json
// before anybody sees them.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dsv3/base/file.h"
#include "dsv3/convert/manifest.h"

namespace dsv3 {

class CheckedFile : public InputFile {
 public:
  // hashes: of this file, outlive it; nullptr: nothing is checked. InputError when the size differs.
  CheckedFile(const std::filesystem::path& path, const FileHashes* hashes);

  ~CheckedFile() override;

  // As InputFile::read, from any thread. A block is read whole and hashed before the first of its bytes is
  // given out, once; InputError{file, "bytes A to B", "differ from manifest.json"} (out then holds nothing to
  // rely on). Memory: a few blocks for all files of the process, see BlockCache.
  void read(std::span<std::byte> out, uint64_t offset) const override;

 private:
  bool is_verified(uint64_t block) const;
  void verify(uint64_t block, std::span<const std::byte> bytes) const;
  void read_part(uint64_t block, std::span<std::byte> out, uint64_t offset) const;

  const FileHashes* hashes_;
  mutable std::vector<std::atomic<uint64_t>> verified_;  // a bit a block
  mutable std::mutex mutex_;                             // one thread at a time reads a block for short reads
};

// Whether a file of the folder is its own: no link leads out of it, but into the blobs of a Hugging Face
// cache.
bool lies_in_folder(const std::filesystem::path& folder, const std::string& name);
// Its path. InputError when it is missing or a link out of the folder.
std::filesystem::path file_in_folder(const std::filesystem::path& folder, const std::string& name);
// The same opened. InputError also when there is a manifest that does not list it, or another size.
// manifest: outlives the result.
std::unique_ptr<CheckedFile> open_in_folder(const std::filesystem::path& folder, const std::string& name,
                                            const std::optional<Manifest>& manifest);

}  // namespace dsv3
