#pragma once
// A Hugging Face tokenizer.json of a byte-level BPE, read and checked. Source of the format: the library
// `tokenizers` 0.23.
//
// What the library would do is done exactly or refused by name; nothing is left out that could change an id.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsv3 {

// Many strings in one buffer.
class StringTable {
 public:
  void add(std::string_view text) {
    text_ += text;
    ends_.push_back(static_cast<uint32_t>(text_.size()));
  }
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t i) const {
    const uint32_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(begin, ends_[i] - begin);
  }

 private:
  std::string text_;
  std::vector<uint32_t> ends_;  // a file is far below 4 GB
};

struct AddedToken {
  std::string content;  // UTF-8, never empty
  std::string shown;    // as it is looked for and decoded: content, or its NFC (see normalized)
  int32_t id = 0;
  bool special = false;  // left out by decode(skip_special)
  // Whether it is looked for after the tokens that are not "normalized": under the normalizer NFC by its NFC
  // in that of the text.
  bool normalized = true;
  bool lstrip = false, rstrip = false;  // takes the white space on its left, right
  bool single_word = false;             // only between characters that are no \w
};

// One step that cuts pieces of text into smaller ones.
struct PreTokenizerStep {
  enum class Kind { regex, literal, digits, punctuation, prefix_space };
  enum class Behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };
  Kind kind = Kind::regex;
  std::string pattern = {};  // of regex (Oniguruma's syntax) and literal
  Behavior behavior = Behavior::isolated;
  bool invert = false;  // what does not match is the delimiter
  std::string field;    // for messages: "pre_tokenizer.pretokenizers.0"
};

struct TokenizerSpec {
  std::string file;            // its path
  std::string hash;            // "xxh3:" and 32 hexadecimal digits of the file's bytes
  StringTable vocab;           // as in the file: most tokens spelled in the byte alphabet
  std::vector<int32_t> ids;    // of vocab, each once, below vocab_size
  int64_t vocab_size = 0;      // one more than the largest id
  StringTable merges;          // left, right, left, right, …: first is merged first
  bool ignore_merges = false;  // a word that is a token is that token
  std::vector<AddedToken> added;
  bool nfc = false;  // the normalizer: what is left of a text when tokens that are not "normalized" are found
  std::vector<PreTokenizerStep> steps;
  std::vector<int32_t> before, after;  // ids of the post-processor's template around a text
};

// Throws InputError naming file and field: no tokenizer.json of a byte-level BPE; larger than 48 MB; an id
// that is negative, taken twice, not below the number of tokens, or not the one that `tokenizers` gives an
// added token; two added tokens of the same NFC where that is looked for; a merge of a token that is not in
// the vocabulary; a vocabulary without one of the 256 bytes; a string of more than 64 kB, an added token of
// more than 256 bytes; anything unsupported.
TokenizerSpec read_tokenizer_json(const std::filesystem::path& path);

// What a file may hold to be read.
constexpr uint64_t kMaxTokenizerFile =
    48u << 20;                          // bytes; the largest that is known, of 262,144 tokens, has 33 MB
constexpr size_t kMaxTokens = 1 << 19;  // tokens, and merges; 262,144 is the most known
constexpr size_t kMaxAddedBytes = 256;  // of a token that is looked for at each place of a text

// A token's bytes: each character is a letter of the byte alphabet of GPT-2 (byte 0x20 is "Ġ"). false, and
// out is the text itself, when one is not.
bool token_bytes(std::string_view token, std::string& out);
// The other way around: bytes as a token is spelled in the file.
std::string token_letters(std::string_view bytes);
// The byte whose letter is number `rank` of 256 in the order of code points.
unsigned char byte_at_rank(int32_t rank);

}  // namespace dsv3
