#pragma once
// Unicode's normalization form NFC, as the Hugging Face library `tokenizers` 0.23 makes it: with the tables
// of Unicode 9. What was assigned later stays as it is and joins with nothing, whatever libutf8proc knows of
// it. Source: Unicode Standard Annex 15.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsv3 {

// Room to work in, of one thread.
struct NfcMemory {
  std::string text = {}, piece = {};
  std::vector<int32_t> points = {};
  // Gives back what a long text took.
  void trim();
};

// The NFC of text, which must be valid UTF-8: text itself when it is already, else a view of memory, valid
// until that is used again. Linear in the text's bytes but for a long run of combining marks, n log n; memory
// then 16 bytes a mark, else little more than the text.
std::string_view to_nfc(std::string_view text, NfcMemory& memory);

}  // namespace dsv3
