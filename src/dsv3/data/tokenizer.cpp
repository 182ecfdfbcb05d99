#include "dsv3/data/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/hash.h"
#include "dsv3/base/philox.h"
#include "dsv3/data/bpe_tokenizer.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

class ByteAdapter : public Tokenizer {
 public:
  std::string name() const override { return std::string(ByteTokenizer::kName); }
  std::string hash() const override { return ByteTokenizer::hash(); }
  int64_t vocab_size() const override { return ByteTokenizer::kVocab; }
  bool cuts_anywhere() const override { return true; }
  std::optional<int32_t> eos() const override { return ByteTokenizer::kEos; }
  std::optional<int32_t> id_of(std::string_view token) const override {
    if (token.size() != 1) return std::nullopt;
    return static_cast<unsigned char>(token[0]);
  }
  void encode(std::string_view text, bool, std::vector<int32_t>& out, std::string_view) const override {
    for (const char byte : text) out.push_back(static_cast<unsigned char>(byte));
  }
  void append_bytes(int32_t id, bool, std::string& out) const override {
    if (id >= 0 && id < 256) out += static_cast<char>(id);
  }
};

// As in Moonlight's folder. Which pattern splits text is known only to the Python code beside it.
constexpr std::string_view kTiktoken = "tiktoken.model";

[[noreturn]] void refuse_tiktoken(const std::filesystem::path& path) {
  throw InputError(path.string(), "", "tiktoken's format is not supported",
                   "write a tokenizer.json with TikTokenConverter of transformers");
}

[[noreturn]] void refuse_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (std::filesystem::exists(folder / kTiktoken, ignored)) refuse_tiktoken(folder / kTiktoken);
  throw InputError((folder / "tokenizer.json").string(), "", "is missing");
}

// Of what is not "byte".
std::filesystem::path file_of(const std::string& name) {
  std::filesystem::path path = name;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    path /= "tokenizer.json";
    if (!std::filesystem::exists(path, ignored)) refuse_folder(path.parent_path());
  }
  if (!std::filesystem::exists(path, ignored)) {
    throw UsageError("--tokenizer", printable(path.string()) + ": no such file", "byte, or a tokenizer.json");
  }
  if (path.filename() == kTiktoken || path.extension() == ".tiktoken") refuse_tiktoken(path);
  return path;
}

}  // namespace

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (int32_t id : ids) append_bytes(id, skip_special, bytes);
  const size_t good = unicode::valid_utf8_prefix(bytes);
  if (good == bytes.size()) return bytes;
  Utf8Stream rest;
  const std::string tail = rest.add(std::string_view(bytes).substr(good)) + rest.finish();
  return bytes.substr(0, good) + tail;
}

std::string DecodeStream::add(int32_t id) {
  std::string bytes;
  tokenizer_.append_bytes(id, skip_special_, bytes);
  return utf8_.add(bytes);
}

std::unique_ptr<const Tokenizer> open_tokenizer(const std::string& name) {
  if (name == ByteTokenizer::kName) return std::make_unique<ByteAdapter>();
  return std::make_unique<BpeTokenizer>(file_of(name));
}

std::string tokenizer_hash(const std::string& name) {
  if (name == ByteTokenizer::kName) return ByteTokenizer::hash();
  const InputFile file(file_of(name));
  Hasher hasher;
  std::vector<std::byte> piece(1 << 20);
  for (uint64_t at = 0; at < file.size(); at += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), file.size() - at));
    file.read(piece, at);
    hasher.update(piece);
  }
  return "xxh3:" + to_hex(hasher.digest());
}

std::vector<int32_t> ByteTokenizer::encode(std::string_view text) {
  std::vector<int32_t> ids(text.size());
  for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
  return ids;
}

std::string ByteTokenizer::decode(std::span<const int32_t> ids) {
  std::string text;
  for (int32_t id : ids) {
    if (id >= 0 && id < 256) text.push_back(static_cast<char>(id));
  }
  return text;
}

std::string ByteTokenizer::hash() {
  const std::string meaning = fmt::format("byte: 0-255 bytes, {} bos, {} eos, {} pad", kBos, kEos, kPad);
  return fmt::format("fnv1a64:{:016x}", hash_name(meaning));
}

}  // namespace dsv3
