#include "dsv3/convert/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/formats/safetensors_header.h"

namespace dsv3 {

uint64_t num_blocks(uint64_t size) { return size / kManifestBlock + (size % kManifestBlock != 0); }

void BlockHasher::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const uint64_t room = kManifestBlock - hashes_.size % kManifestBlock;
    const auto part = bytes.first(std::min<uint64_t>(bytes.size(), room));
    hasher_.update(part);
    hashes_.size += part.size();
    if (part.size() == room) {
      hashes_.blocks.push_back(hasher_.digest());
      hasher_.reset();
    }
    bytes = bytes.subspan(part.size());
  }
}

FileHashes BlockHasher::finish() {
  if (hashes_.size % kManifestBlock != 0) hashes_.blocks.push_back(hasher_.digest());
  hasher_.reset();
  return std::exchange(hashes_, {});
}

bool has_manifest(const std::filesystem::path& folder) {
  std::error_code error;
  // Only "not found" is absence: a folder that cannot be looked into must not pass for one without hashes.
  return std::filesystem::symlink_status(folder / kManifestName, error).type() !=
         std::filesystem::file_type::not_found;
}

void require_manifest(const std::filesystem::path& folder) {
  if (!has_manifest(folder))
    throw InputError(folder.string(), kManifestName, "is missing: its bytes are unverified",
                     "name this folder itself to take it all the same");
}

FileHashes hash_file(const std::filesystem::path& path) { return hash_file(path, {}); }

FileHashes hash_file(const std::filesystem::path& path, const FileHashes& tail) {
  const InputFile file(path);
  const uint64_t end = file.size() - tail.size;
  std::vector<std::byte> piece(std::min<uint64_t>(end, 1 << 20));
  BlockHasher hasher;
  for (uint64_t at = 0; at < end; at += piece.size()) {
    const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), end - at));
    file.read(part, at);
    hasher.update(part);
  }
  FileHashes hashes = hasher.finish();
  hashes.size += tail.size;
  hashes.blocks.insert(hashes.blocks.end(), tail.blocks.begin(), tail.blocks.end());
  return hashes;
}

bool is_manifest_name(std::string_view name) {
  return is_plain_name(name) && name != "." && name != ".." && name != kManifestName && name.size() <= 255 &&
         name.find('/') == name.npos;
}

std::string Manifest::text() const {
  std::string text =
      fmt::format("{{\n\"format\": \"dsv3-manifest\",\n\"version\": 1,\n\"block_bytes\": {},\n\"files\": {{",
                  kManifestBlock);
  const char* comma = "\n";
  for (const auto& [name, file] : files) {
    if (!is_manifest_name(name) || file.blocks.size() != num_blocks(file.size)) {
      throw std::logic_error("manifest: cannot list " + printable(name));
    }
    std::string quoted;
    try {
      quoted = Json(name).dump();
    } catch (const Json::type_error&) {  // no UTF-8
      throw std::logic_error("manifest: cannot list " + printable(name));
    }
    text += fmt::format("{}{}: {{\"size\": {}, \"blocks\": [", comma, quoted, file.size);
    comma = ",\n";
    const char* between = "\n\"";
    for (const Hash128& hash : file.blocks) {
      text += between + to_hex(hash) + "\"";
      between = ",\n\"";
    }
    text += "]}";
  }
  text += "\n},\n";
  const Hash128 content = hash_bytes(std::as_bytes(std::span(text.data(), text.size())));
  text += fmt::format("\"content\": \"{}\"\n}}\n", to_hex(content));
  if (text.size() > kMaxText) throw std::logic_error("manifest: more blocks than it may list");
  return text;
}

void write_manifest(const std::filesystem::path& folder, std::map<std::string, FileHashes> known) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && is_manifest_name(name) && !known.contains(name))
      known.emplace(name, hash_file(entry.path()));
  }
  write_atomically(folder / kManifestName, Manifest{std::move(known)}.text());
}

void check_listed_file(const std::optional<Manifest>& manifest, const std::filesystem::path& folder,
                       const std::string& name) {
  if (!manifest) return;
  const auto listed = manifest->files.find(name);
  if (listed != manifest->files.end() && hash_file(folder / name) != listed->second)
    throw InputError(
        (folder / name).string(), "", std::string("differs from ") + kManifestName,
        "restore it; or, if it was edited on purpose, remove manifest.json and go on unverified");
}

}  // namespace dsv3
