#pragma once
// manifest.json of a checkpoint folder (DCP or Hugging Face): the hash of every 8 MiB block of every other
// file of the folder, so that a range can be checked when it is read. It finds damage; it is no signature.
//
//   {
//   "format": "dsv3-manifest",
//   "version": 1,
//   "block_bytes": 8388608,
//   "files": {
//   "NAME": {"size": BYTES, "blocks": [
//   "HEX",
//   "HEX"]}
//   },
//   "content": "HEX"
//   }
//
// HEX: XXH3 of 128 bits (base/hash.h). Names ascend by their bytes. content is the hash of every byte before
// its line and is checked before anything is parsed.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/hash.h"

namespace dsv3 {

inline constexpr const char* kManifestName = "manifest.json";
inline constexpr uint64_t kManifestBlock = 8u << 20;  // bytes; a file's last block may be shorter

struct FileHashes {
  uint64_t size = 0;            // bytes
  std::vector<Hash128> blocks;  // num_blocks(size)
  bool operator==(const FileHashes&) const = default;
};

// Of a file of this size: an empty one has none.
uint64_t num_blocks(uint64_t size);

// Fed the bytes of a file in order, in any pieces.
class BlockHasher {
 public:
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  FileHashes finish();  // and begins anew

 private:
  Hasher hasher_;
  FileHashes hashes_;
};

// Of a file already written, read in pieces of 1 MiB.
FileHashes hash_file(const std::filesystem::path& path);
// The same where the hashes of its last bytes, from the start of a block on, are known.
FileHashes hash_file(const std::filesystem::path& path, const FileHashes& tail);

// Whether the folder has one; what it says, and whether it can be read, is another question.
bool has_manifest(const std::filesystem::path& folder);
// InputError when it has none: of a run's checkpoint, whose writer made one, nobody can say whether it is
// what was saved.
void require_manifest(const std::filesystem::path& folder);

struct Manifest {
  std::map<std::string, FileHashes> files;  // by plain file name

  // std::logic_error: a name that is no plain UTF-8 file name, blocks that don't fit the size, more than
  // kMaxText bytes in all.
  std::string text() const;
  // Nothing when the folder holds no manifest.json. InputError{its path, key or byte}: longer than kMaxText,
  // cut off, its own hash differs, other keys than above or in another order, names that are none of a plain
  // file or don't ascend, sizes and numbers of blocks that don't fit. Memory: 16 bytes a block that the text
  // really holds.
  static std::optional<Manifest> read(const std::filesystem::path& folder);

  static constexpr uint64_t kMaxText = 48u << 20;  // 1.3 million blocks, 11 TB
};

// Writes manifest.json over every file of the folder; those that `known` lacks are read to be hashed.
void write_manifest(const std::filesystem::path& folder, std::map<std::string, FileHashes> known);

// InputError when the folder's manifest, if it has one, lists the file and its bytes are others. For small
// files that are read by name; large ones are read through a CheckedFile.
void check_listed_file(const std::optional<Manifest>& manifest, const std::filesystem::path& folder,
                       const std::string& name);

// Whether a manifest can list it: a UTF-8 name of a file in the folder itself, no control characters, at most
// 255 bytes, not manifest.json.
bool is_manifest_name(std::string_view name);

}  // namespace dsv3
