#include "dsv3/data/tokenizer.h"

#include <fmt/format.h>

#include "dsv3/base/philox.h"

namespace dsv3 {

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
