#pragma once
// Text to ids and back: bytes, or the tokenizer.json of a Hugging Face folder.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/data/utf8_stream.h"

namespace dsv3 {

// Immutable once made: any number of threads may encode and decode with one.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // "byte", or the path of tokenizer.json, absolute: what --tokenizer takes in any folder.
  virtual std::string name() const = 0;
  // Changes when ids change their meaning: data made with another tokenizer has another hash.
  virtual std::string hash() const = 0;
  // One more than the largest id.
  virtual int64_t vocab_size() const = 0;
  // Whether a text may be encoded in pieces, cut anywhere.
  virtual bool cuts_anywhere() const = 0;
  // The token that ends a document; nothing when the tokenizer does not say. BpeTokenizer asks eos_token of
  // the tokenizer_config.json beside its file, and throws InputError when that is no token.
  virtual std::optional<int32_t> eos() const = 0;
  // The id of a token written as text, such as "<|endoftext|>".
  virtual std::optional<int32_t> id_of(std::string_view token) const = 0;

  // Appends text's ids to out. add_special: with what the tokenizer puts around a text, such as a bos.
  // InputError{what, "byte N"} when the tokenizer needs UTF-8 and text is none, what naming the text;
  // InputError when a pattern of the file takes too long.
  virtual void encode(std::string_view text, bool add_special, std::vector<int32_t>& out,
                      std::string_view what = "text") const = 0;
  // Appends the bytes of one token, which may be a part of a character. Ids without a token are left out,
  // with skip_special also special tokens.
  virtual void append_bytes(int32_t id, bool skip_special, std::string& out) const = 0;

  // The text of ids. Bytes that are no UTF-8 become U+FFFD, one for each longest beginning of a character.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;
};

// Text as ids come, in whole characters; together it is decode() of all ids.
class DecodeStream {
 public:
  DecodeStream(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string add(int32_t id);
  // What is left at the end: U+FFFD when a character was cut off.
  std::string finish() { return utf8_.finish(); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  Utf8Stream utf8_;
};

// "byte", a tokenizer.json, or a folder that has one. UsageError naming --tokenizer when it does not exist;
// InputError when the folder has none, the file is tiktoken's, or is refused, see read_tokenizer_json().
std::unique_ptr<const Tokenizer> open_tokenizer(const std::string& name);

// open_tokenizer(name)->hash(), by the bytes of its file alone. The same UsageError; InputError when it
// cannot be read.
std::string tokenizer_hash(const std::string& name);

// The byte tokenizer: id = byte; 256 bos, 257 eos, 258 pad; vocabulary 259.
struct ByteTokenizer {
  static constexpr std::string_view kName = "byte";
  static constexpr int32_t kBos = 256, kEos = 257, kPad = 258;
  static constexpr int64_t kVocab = 259;
  static std::vector<int32_t> encode(std::string_view text);
  // Ids above 255 are left out.
  static std::string decode(std::span<const int32_t> ids);
  // "fnv1a64:" and 16 hexadecimal digits of the ids' meaning: data made with another tokenizer has another
  // hash.
  static std::string hash();
};

}  // namespace dsv3
