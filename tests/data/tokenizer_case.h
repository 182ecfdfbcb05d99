#pragma once
// A small tokenizer.json that tests change at one place.

#include <string>
#include <string_view>

#include "dsv3/base/json.h"
#include "dsv3/data/tokenizer_json.h"
#include "support/files.h"

namespace dsv3::test {

// The letter of the byte alphabet that means byte, as UTF-8.
inline std::string letter(int byte) {
  std::string out;
  for (int c = 0x21; c < 256 + 68; ++c) {
    const std::string text =
        c < 0x80 ? std::string(1, static_cast<char>(c))
                 : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    if (token_bytes(text, out) && static_cast<unsigned char>(out[0]) == byte) return text;
  }
  return {};
}

inline Json added_token(std::string_view content, int64_t id) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// 256 bytes as ids 0 to 255, "he" 256, "ll" 257, "hell" 258; "<|eos|>" added as 259; split at white space.
inline Json small_tokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[letter(byte)] = byte;
  vocab["he"] = 256;
  vocab["ll"] = 257;
  vocab["hell"] = 258;
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {added_token("<|eos|>", 259)}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"Regex", "\\s+"}}}, {"behavior", "Isolated"}, {"invert", false}},
          {{"type", "ByteLevel"},
           {"add_prefix_space", false},
           {"trim_offsets", true},
           {"use_regex", false}}}}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"vocab", vocab},
        {"merges", {"h e", "l l", "he ll"}}}}};
}

}  // namespace dsv3::test
