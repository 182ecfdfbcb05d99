#pragma once
// The byte tokenizer: id = byte; 256 bos, 257 eos, 258 pad; vocabulary 259.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsv3 {

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
