#include "dsv3/data/tokenizer_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxString = 64 << 10;      // bytes in the file; a pattern of 3,000 is the longest known
constexpr size_t kMaxOtherValues = 1 << 17;  // mostly added tokens, 8 values each
constexpr size_t kMaxDepth = 16;

// The file's bytes, read piece by piece, hashed, and checked for what would make the JSON lexer collect
// without bound.
class FileBytes {
 public:
  explicit FileBytes(const InputFile& file) : file_(file), state_(XXH3_createState(), XXH3_freeState) {
    XXH3_128bits_reset(state_.get());
  }

  // The next piece; empty at the end.
  std::string_view next_piece() {
    const size_t size = std::min<uint64_t>(sizeof buffer_, file_.size() - next_);
    file_.read(std::as_writable_bytes(std::span(buffer_, size)), next_);
    XXH3_128bits_update(state_.get(), buffer_, size);
    for (size_t i = 0; i < size; ++i) check(buffer_[i], next_ + i);
    next_ += size;
    return {buffer_, size};
  }

  std::string hash() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("xxh3:{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  void check(char c, uint64_t at) {
    if (c == '\0') throw InputError(file_.path(), fmt::format("byte {}", at), "not valid JSON: NUL byte");
    // Digits count too: a number is collected like a string.
    run_ = in_string_ || (c >= '0' && c <= '9') ? run_ + 1 : 0;
    if (run_ > kMaxString) {
      throw InputError(file_.path(), fmt::format("byte {}", at),
                       fmt::format("a string or number of more than {} bytes", kMaxString));
    }
    if (!in_string_) {
      in_string_ = c == '"';
    } else if (std::exchange(escaped_, false)) {
      return;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
    }
  }

  const InputFile& file_;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
  uint64_t next_ = 0;
  size_t run_ = 0;
  bool in_string_ = false, escaped_ = false;
  char buffer_[1 << 16];
};

// An input iterator over all pieces; a default one is the end.
class FileIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  FileIterator() = default;
  explicit FileIterator(FileBytes& bytes) : bytes_(&bytes), piece_(bytes.next_piece()) {}
  char operator*() const { return piece_.front(); }
  FileIterator& operator++() {
    piece_.remove_prefix(1);
    if (piece_.empty()) piece_ = bytes_->next_piece();
    return *this;
  }
  bool operator==(const FileIterator& other) const { return piece_.empty() == other.piece_.empty(); }

 private:
  FileBytes* bytes_ = nullptr;
  std::string_view piece_;
};

// {…, "model": {…, "vocab": {token: id}, "merges": ["a b"] or [["a", "b"]]}}; all else becomes a Json.
class Parser : public nlohmann::json_sax<Json> {
 public:
  explicit Parser(TokenizerFile& out) : out_(out) {}

  bool start_object(size_t) override {
    if (place_ != Place::rest) fail("an object where none belongs");
    if (at_model("vocab")) {
      place_ = Place::vocab;
      out_.has_vocab = true;
      return true;
    }
    return open(Json::object());
  }
  bool start_array(size_t) override {
    if (place_ == Place::merges) {
      place_ = Place::pair;
      parts_ = 0;
      return true;
    }
    if (place_ != Place::rest) fail("an array where none belongs");
    if (at_model("merges")) {
      place_ = Place::merges;
      out_.has_merges = true;
      return true;
    }
    return open(Json::array());
  }
  bool end_object() override {
    if (place_ == Place::vocab) {
      place_ = Place::rest;
      return true;
    }
    return close();
  }
  bool end_array() override {
    if (place_ == Place::pair) {
      if (parts_ != 2) fail("is no pair of two tokens");
      place_ = Place::merges;
      return true;
    }
    if (place_ == Place::merges) {
      place_ = Place::rest;
      return true;
    }
    return close();
  }

  bool key(std::string& name) override {
    if (place_ == Place::vocab) {
      token_ = std::move(name);
      return true;
    }
    Frame& frame = frames_.back();
    const bool seen =
        frame.value.contains(name) ||
        (is_model() && ((name == "vocab" && out_.has_vocab) || (name == "merges" && out_.has_merges)));
    frame.key = std::move(name);
    if (seen) fail("duplicate key");
    if (frame.value.size() == kMaxKeys) fail(fmt::format("more than {} keys", kMaxKeys));
    return true;
  }
  bool string(std::string& value) override {
    switch (place_) {
      case Place::rest:
        return put(std::move(value));
      case Place::vocab:
        fail("a string, expected an id");
      case Place::merges:
        return add_legacy_merge(value);
      case Place::pair:
        if (++parts_ > 2) fail("is no pair of two tokens");
        return add_part(value);
    }
    return false;
  }
  bool number_unsigned(uint64_t value) override {
    return number_integer(static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX)));
  }
  bool number_integer(int64_t value) override {
    if (place_ == Place::rest) return put(value);
    if (place_ != Place::vocab) fail("a number where none belongs");
    if (out_.vocab.size() == kMaxTokens) fail(fmt::format("more than {} tokens", kMaxTokens));
    out_.vocab.add(token_);
    out_.ids.push_back(value);
    return true;
  }
  bool number_float(double value, const std::string& text) override {
    if (place_ != Place::rest) fail(printable(text, 32) + " is no integer of 64 bits");
    return put(value);
  }
  bool null() override { return small(nullptr); }
  bool boolean(bool value) override { return small(value); }
  bool binary(Json::binary_t&) override { return false; }  // no such thing in text
  bool parse_error(size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    throw json_error(out_.file, byte, error.what());
  }

 private:
  enum class Place { rest, vocab, merges, pair };
  static constexpr size_t kMaxKeys = 1000;
  struct Frame {
    Json value;
    std::string key = {};
  };

  [[noreturn]] void fail(std::string_view why) const {
    std::string where;
    for (const Frame& frame : frames_) {
      if (!where.empty()) where += '.';
      where += frame.value.is_array() ? std::to_string(frame.value.size()) : frame.key;
    }
    if (place_ == Place::vocab) where += "." + token_;
    if (place_ == Place::merges || place_ == Place::pair) {
      const size_t begun = place_ == Place::pair ? static_cast<size_t>(std::min(parts_, 2)) : 0;
      where += fmt::format(".{}", (out_.merges.size() - begun) / 2);
    }
    throw InputError(out_.file, where, why);
  }

  bool is_model() const { return frames_.size() == 2 && frames_.front().key == "model"; }
  bool at_model(std::string_view key) const { return is_model() && frames_.back().key == key; }

  bool small(Json value) {
    if (place_ != Place::rest) fail("null or a boolean where none belongs");
    return put(std::move(value));
  }
  bool open(Json empty) {
    if (frames_.size() == kMaxDepth) fail(fmt::format("nested deeper than {} levels", kMaxDepth));
    frames_.push_back({std::move(empty)});
    return true;
  }
  bool close() {
    Json done = std::move(frames_.back().value);
    frames_.pop_back();
    return put(std::move(done));
  }
  bool put(Json value) {
    if (++values_ > kMaxOtherValues) fail(fmt::format("more than {} values", kMaxOtherValues));
    if (frames_.empty()) {
      out_.rest = std::move(value);
    } else if (frames_.back().value.is_array()) {
      frames_.back().value.push_back(std::move(value));
    } else {
      auto& object = frames_.back().value.get_ref<Json::object_t&>();
      object.emplace_back(frames_.back().key, std::move(value));
    }
    return true;
  }

  bool add_part(std::string_view token) {
    if (out_.merges.size() == 2 * kMaxTokens) fail(fmt::format("more than {} merges", kMaxTokens));
    out_.merges.add(token);
    return true;
  }
  // "a b": what merges were before pairs. The first line of merges.txt may be among them.
  bool add_legacy_merge(std::string_view text) {
    if (text.starts_with("#version")) return true;
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos) {
      fail(fmt::format("\"{}\" is no pair of two tokens", printable(text, 64)));
    }
    return add_part(text.substr(0, space)) && add_part(text.substr(space + 1));
  }

  TokenizerFile& out_;
  Place place_ = Place::rest;
  std::vector<Frame> frames_;
  std::string token_;  // of vocab, whose id comes
  size_t values_ = 0;
  int parts_ = 0;  // of a pair, seen so far
};

}  // namespace

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  const InputFile file(path);
  if (file.size() > kMaxTokenizerFile) {
    throw InputError(file.path(), "",
                     fmt::format("{} bytes, at most {} expected", file.size(), kMaxTokenizerFile));
  }
  TokenizerFile out;
  out.file = file.path();
  FileBytes bytes(file);
  Parser parser(out);
  nlohmann::json::sax_parse(FileIterator(bytes), FileIterator(), &parser);
  out.hash = bytes.hash();
  if (!out.rest.is_object()) throw InputError(out.file, "", "is no JSON object");
  return out;
}

}  // namespace dsv3
