#include "dsv3/data/unicode.h"

#include <algorithm>
#include <bitset>
#include <cstring>

namespace dsv3::unicode {
namespace {

#include "dsv3/data/unicode_tables.inc"

bool holds(std::span<const CharRange> ranges, uint32_t c) {
  const auto found = std::ranges::lower_bound(ranges, c, {}, &CharRange::last);
  return found != ranges.end() && found->first <= c;
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Bytes of the character at text[at], 0 when it is broken or cut off.
size_t char_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || length > text.size() - at) return 0;
  // No overlong forms, no surrogates, nothing above U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i)
    if (!is_continuation(text[at + i])) return 0;
  return length;
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080808080808080) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const size_t length = char_length(text, at);
    if (length == 0) return at;
    at += length;
  }
  return at;
}

uint32_t next_char(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const uint32_t lead = byte(0);
  uint32_t c = lead;
  size_t length = 1;
  if (lead >= 0xF0) {
    c = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    length = 4;
  } else if (lead >= 0xE0) {
    c = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    length = 3;
  } else if (lead >= 0xC0) {
    c = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    length = 2;
  }
  at += length;
  return c;
}

size_t char_before(std::string_view text, size_t end) {
  --end;
  while (end > 0 && is_continuation(text[end])) --end;
  return end;
}

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
bool is_word(uint32_t c) { return holds(kWord, c); }
bool is_numeric(uint32_t c) { return holds(kNumeric, c); }
bool is_punctuation(uint32_t c) { return holds(kPunctuation, c); }

bool nfc_may_change(uint32_t c) {
  // Asked of each character of a text that is not Latin: one bit instead of a search.
  static constexpr size_t kEnd = std::end(kNfcChange)[-1].last + 1;
  static const auto bits = [] {
    std::bitset<kEnd> set;
    for (const CharRange& range : kNfcChange)
      for (uint32_t i = range.first; i <= range.last; ++i) set.set(i);
    return set;
  }();
  return c < kEnd && bits[c];
}
bool nfc_may_join(uint32_t c) { return holds(kNfcJoin, c); }

bool newer_than_pcre2(std::string_view name, std::span<const CharRange>& ranges) {
  struct Property {
    std::string_view name;
    std::span<const CharRange> ranges;
  };
  static constexpr Property kProperties[] = {
      {"L", kNewL},   {"Lu", kNewLu}, {"Ll", kNewLl}, {"Lt", {}},     {"Lm", kNewLm},
      {"Lo", kNewLo}, {"M", kNewM},   {"N", kNewN},   {"Nd", kNewNd}, {"Nl", {}},
      {"No", kNewNo}, {"P", kNewP},   {"S", kNewS},   {"Z", {}},
  };
  for (const Property& property : kProperties) {
    if (property.name != name) continue;
    ranges = property.ranges;
    return true;
  }
  return false;
}

}  // namespace dsv3::unicode
