#pragma once
// The small parts of a tokenizer.json, each by its type: inside this room, for tokenizer_json.cpp.

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/json.h"
#include "dsv3/data/tokenizer_json.h"

namespace dsv3 {

// A value of the file with its path; a key that is not there is null. All throw InputError naming the path.
class JsonField {
 public:
  JsonField(std::string_view file, std::string path, const Json& value)
      : file_(file), path_(std::move(path)), value_(value) {}

  const std::string& path() const { return path_; }
  bool is_null() const { return value_.is_null(); }
  size_t size() const { return value_.size(); }
  bool has(std::string_view key) const { return value_.contains(key); }  // of an object, also when it is null
  JsonField operator[](std::string_view key) const;                      // of an object
  std::string string() const;
  int64_t integer() const;
  double number() const;
  bool boolean() const;
  bool boolean_or(bool missing) const { return is_null() ? missing : boolean(); }
  // The elements of an array; null has none.
  template <class Call>
  void for_each(Call call) const {
    if (is_null()) return;
    if (!value_.is_array()) fail("is no array");
    for (size_t i = 0; i < value_.size(); ++i) call(JsonField(file_, join(std::to_string(i)), value_[i]));
  }
  // Keys that may be there; what another one means is unknown.
  void only_keys(std::initializer_list<std::string_view> keys) const;
  // The name of an object's only key: {"Regex": …}.
  std::string only_key() const;
  [[noreturn]] void fail(std::string_view why, std::string_view hint = {}) const;

 private:
  std::string join(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  }
  std::string_view file_;
  std::string path_;
  const Json& value_;
};

// None, NFC, or a Sequence of these; whether NFC is there.
bool read_normalizer(const JsonField& field);
// ByteLevel, alone or in a Sequence.
void check_decoder(const JsonField& field);
// A Sequence of Split, Digits and Punctuation whose last is ByteLevel; ByteLevel's own pattern and prefix
// become steps.
std::vector<PreTokenizerStep> read_pre_tokenizer(const JsonField& field);
// None, ByteLevel, TemplateProcessing, or a Sequence of the two. Fills out.before and out.after; needs
// out.vocab_size.
void read_post_processor(const JsonField& field, TokenizerSpec& out);

}  // namespace dsv3
