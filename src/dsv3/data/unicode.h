#pragma once
// Kinds of characters as the Hugging Face library `tokenizers` 0.23 takes them, and UTF-8 that is known to be
// valid.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace dsv3::unicode {

struct CharRange {
  uint32_t first, last;  // both within
};

// Where the first byte stands that is not part of valid UTF-8 (RFC 3629); text.size() when all is valid.
size_t valid_utf8_prefix(std::string_view text);

// The code point that starts at text[at], which must be valid UTF-8; moves at behind it.
uint32_t next_char(std::string_view text, size_t& at);
// Where the character starts that ends at text[end); end > 0.
size_t char_before(std::string_view text, size_t end);

bool is_space(uint32_t c);        // \s: White_Space
bool is_word(uint32_t c);         // \w of Rust's regular expressions: what single_word looks at
bool is_numeric(uint32_t c);      // what Digits splits at
bool is_punctuation(uint32_t c);  // what Punctuation splits at: Unicode 8's and all of ASCII's

// Of NFC (nfc.h). Whether a character may be changed, moved, or joined to the one before it: no starter, or
// Quick_Check is not Yes.
bool nfc_may_change(uint32_t c);
// Whether a character that does not change by itself may do so with those behind it.
bool nfc_may_join(uint32_t c);

// What \p{NAME} holds beyond PCRE2's Unicode 14; empty when nothing. false when NAME is not supported.
bool newer_than_pcre2(std::string_view name, std::span<const CharRange>& ranges);

}  // namespace dsv3::unicode
