#pragma once
// Byte-level BPE of a Hugging Face tokenizer.json: DeepSeek-V3's and its kin. Equal to the library
// `tokenizers` 0.23, id for id.

#include <filesystem>
#include <memory>

#include "dsv3/data/tokenizer.h"

namespace dsv3 {

class BpeTokenizer : public Tokenizer {
 public:
  // InputError: see read_tokenizer_json() and to_pcre2().
  explicit BpeTokenizer(const std::filesystem::path& path);
  ~BpeTokenizer() override;

  std::string name() const override;
  std::string hash() const override;  // "xxh3:" and 32 hexadecimal digits of the file
  int64_t vocab_size() const override;
  bool cuts_anywhere() const override { return false; }
  std::optional<int32_t> eos() const override;
  std::optional<int32_t> id_of(std::string_view token) const override;
  // A text is at most 1 GB. A thread that encodes keeps up to 5 MB of words that it has seen.
  void encode(std::string_view text, bool add_special, std::vector<int32_t>& out,
              std::string_view what = "text") const override;
  void append_bytes(int32_t id, bool skip_special, std::string& out) const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsv3
