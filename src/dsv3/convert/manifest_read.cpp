// Reading manifest.json: its own hash first, then a stream of JSON events that must be the ones that we
// write.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/base/text_pieces.h"
#include "dsv3/convert/manifest.h"

namespace dsv3 {
namespace {

constexpr std::string_view kTrailerBegin = "\"content\": \"", kTrailerEnd = "\"\n}\n";
constexpr uint64_t kTrailer = kTrailerBegin.size() + 32 + kTrailerEnd.size();
constexpr uint64_t kPiece = 1 << 20;
constexpr uint64_t kBytesPerBlock = 34;  // the least that a hash takes in the text
constexpr size_t kMaxFiles = 100'000;

// The hash of everything before the last lines is what they say.
void check_content(const InputFile& file) {
  const auto fail = [&](std::string_view why) {
    throw InputError(file.path(), "content", why, "it was changed or cut off after it was written");
  };
  if (file.size() > Manifest::kMaxText) {
    throw InputError(file.path(), "",
                     fmt::format("{} bytes, at most {} expected", file.size(), Manifest::kMaxText));
  }
  if (file.size() < kTrailer) fail(fmt::format("is missing: {} bytes are no manifest", file.size()));
  const uint64_t end = file.size() - kTrailer;
  std::string trailer(kTrailer, '\0');
  file.read(std::as_writable_bytes(std::span(trailer.data(), trailer.size())), end);
  const std::string_view text = trailer;
  const auto expected = hash_from_hex(text.substr(kTrailerBegin.size(), 32));
  if (!text.starts_with(kTrailerBegin) || !text.ends_with(kTrailerEnd) || !expected) {
    fail("is missing: the file does not end in its own hash");
  }
  std::vector<std::byte> piece(std::min(end, kPiece));
  Hasher hasher;
  for (uint64_t at = 0; at < end; at += piece.size()) {
    const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), end - at));
    file.read(part, at);
    hasher.update(part);
  }
  if (hasher.digest() != *expected) fail("differs from the hash of the file");
}

// One event after the other, in the only order that text() writes.
class ManifestParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit ManifestParser(const InputFile& file) : file_(file.path()), room_(file.size() / kBytesPerBlock) {}
  std::map<std::string, FileHashes> take() { return std::move(files_); }

  bool start_object(size_t) override {
    if (depth_ == 2) {
      files_.emplace_hint(files_.end(), name_, FileHashes());
      key_.clear();
    } else if (depth_ != 0 && !(depth_ == 1 && key_ == "files")) {
      unexpected("an object");
    }
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (depth_ == 1 && key_ != "content") fail("content", "is missing");
    if (depth_ == 3 && key_ != "blocks") fail(field("blocks"), "is missing");
    if (--depth_ == 1) key_ = "files";
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 3 || key_ != "blocks") unexpected("an array");
    ++depth_;
    return true;
  }
  bool end_array() override {
    const FileHashes& file = files_.rbegin()->second;
    if (file.blocks.size() != num_blocks(file.size)) {
      fail(field("blocks"),
           fmt::format("{} hashes, {} bytes have {}", file.blocks.size(), file.size, num_blocks(file.size)));
    }
    --depth_;
    return true;
  }

  bool key(std::string& name) override {
    if (depth_ == 1)
      return next_key(name, {"", "format", "version", "block_bytes", "files", "content"}, name);
    if (depth_ == 3) return next_key(name, {"", "size", "blocks"}, field(name));
    if (!is_manifest_name(name)) fail("files." + name, "is no plain file name");
    if (files_.size() == kMaxFiles) fail("files", fmt::format("more than {} files", kMaxFiles));
    if (!files_.empty() && name <= files_.rbegin()->first) {
      fail("files." + name, name == files_.rbegin()->first ? "duplicate key" : "is out of order");
    }
    name_ = std::move(name);
    return true;
  }

  bool string(std::string& value) override {
    if (depth_ == 1 && key_ == "content") return true;  // check_content() read it
    if (depth_ == 1 && key_ == "format") {
      if (value != "dsv3-manifest") fail("format", shown(value) + ", expected \"dsv3-manifest\"");
      return true;
    }
    if (depth_ != 4) unexpected("a string");
    FileHashes& file = files_.rbegin()->second;
    const auto hash = hash_from_hex(value);
    if (!hash) fail(block_field(), shown(value) + " is no hash of 32 hexadecimal digits");
    if (file.blocks.size() == num_blocks(file.size)) fail(block_field(), "one hash too many");
    file.blocks.push_back(*hash);
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (depth_ == 3 && key_ == "size") return set_size(value);
    if (depth_ == 1 && key_ == "version") {
      if (value != 1) fail("version", fmt::format("{}, this program reads 1", value));
      return true;
    }
    if (depth_ == 1 && key_ == "block_bytes") {
      if (value != kManifestBlock) fail("block_bytes", fmt::format("{}, expected {}", value, kManifestBlock));
      return true;
    }
    unexpected("a number");
  }
  bool number_integer(int64_t) override { unexpected("a negative number"); }
  bool number_float(double, const std::string&) override { unexpected("a fraction"); }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    throw json_error(file_, byte, error.what());
  }

 private:
  [[noreturn]] void fail(std::string_view field, std::string_view why) const {
    throw InputError(file_, field, why);
  }
  [[noreturn]] void unexpected(std::string_view what) const {
    if (depth_ == 0) fail("", "expected a JSON object");
    fail(depth_ == 4   ? block_field()
         : depth_ == 3 ? field(key_)
         : depth_ == 2 ? field("")
                       : key_,
         fmt::format("{} is not expected here", what));
  }
  static std::string shown(std::string_view value) { return "\"" + printable(value, 60) + "\""; }
  std::string field(std::string_view key) const {
    return fmt::format("files.{}{}{}", name_, key.empty() ? "" : ".", key);
  }
  std::string block_field() const {
    return fmt::format("{}.{}", field("blocks"), files_.rbegin()->second.blocks.size());
  }

  // keys: what may follow what; the first stands for the beginning.
  bool next_key(std::string& name, std::initializer_list<std::string_view> keys, const std::string& where) {
    const auto last = std::ranges::find(keys, std::string_view(key_));
    if (last + 1 == keys.end() || *(last + 1) != name) {
      const bool seen = std::find(keys.begin() + 1, last + 1, name) != last + 1;
      fail(where, seen                     ? std::string("duplicate key")
                  : last + 1 == keys.end() ? std::string("is unexpected")
                                           : fmt::format("is unexpected, \"{}\" comes here", *(last + 1)));
    }
    key_ = std::move(name);
    return true;
  }
  bool set_size(uint64_t size) {
    FileHashes& file = files_.rbegin()->second;
    // What the text cannot hold is never allocated for.
    if (num_blocks(size) > room_) {
      fail(field("size"),
           fmt::format("{} bytes have {} blocks, more than manifest.json can list", size, num_blocks(size)));
    }
    room_ -= num_blocks(size);
    file.size = size;
    file.blocks.reserve(num_blocks(size));
    return true;
  }

  const std::string& file_;
  uint64_t room_;  // blocks that the text can still hold
  std::map<std::string, FileHashes> files_;
  int depth_ = 0;           // 1 the file, 2 "files", 3 one file, 4 its blocks
  std::string key_, name_;  // the last key of depth 1 or 3; the current file
};

}  // namespace

std::optional<Manifest> Manifest::read(const std::filesystem::path& folder) {
  const auto path = folder / kManifestName;
  if (!has_manifest(folder)) return std::nullopt;
  const InputFile file(path);
  check_content(file);
  TextPieces text(file, 0, file.size());
  ManifestParser parser(file);
  nlohmann::json::sax_parse(TextIterator(text), TextIterator(), &parser);
  return Manifest{parser.take()};
}

}  // namespace dsv3
