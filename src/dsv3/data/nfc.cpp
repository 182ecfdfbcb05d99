#include "dsv3/data/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "dsv3/base/error.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

constexpr size_t kKeptBytes = 1 << 20;
constexpr int kClassShift = 21;  // a code point has 21 bits

// Where the first character at or behind text[at] stands that NFC may change; text.size() when none does.
size_t find_unstable(std::string_view text, size_t at) {
  // Such a character is U+0300 or more, so it begins with a byte of 0xCC or more: eight are looked at
  // together.
  constexpr uint64_t kHigh = 0x8080808080808080, kLow = ~kHigh, kCarry = 0x3434343434343434;
  while (at < text.size()) {
    uint64_t eight;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & ((eight & kLow) + kCarry) & kHigh) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    if (static_cast<unsigned char>(text[at]) < 0xCC) {
      ++at;
      continue;
    }
    size_t next = at;
    if (unicode::nfc_may_change(unicode::next_char(text, next))) return at;
    at = next;
  }
  return at;
}

// Combining marks between two starters are put in the order of their classes, equal ones kept in theirs.
// Here and not by utf8proc_decompose(), which moves each past one after another: quadratic in a run.
void order_marks(std::vector<int32_t>& points) {
  const auto mark_class = [](int32_t point) { return point >> kClassShift; };
  for (int32_t& point : points) point |= utf8proc_get_property(point)->combining_class << kClassShift;
  for (auto first = points.begin(); first != points.end();) {
    const auto last = std::find_if(first, points.end(), [&](int32_t p) { return mark_class(p) == 0; });
    if (!std::ranges::is_sorted(first, last, {}, mark_class))
      std::ranges::stable_sort(first, last, {}, mark_class);
    first = last == points.end() ? last : last + 1;
  }
  for (int32_t& point : points) point &= (1 << kClassShift) - 1;
}

// The NFC of a few characters that change with nothing around them, into memory.piece.
void normalize(std::string_view text, NfcMemory& memory) {
  std::vector<int32_t>& points = memory.points;
  points.clear();
  for (size_t at = 0; at < text.size();) {
    std::array<int32_t, 8> parts;  // four is the most of Unicode
    int ignored = 0;
    const auto count = utf8proc_decompose_char(static_cast<int32_t>(unicode::next_char(text, at)),
                                               parts.data(), parts.size(), UTF8PROC_DECOMPOSE, &ignored);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(parts.size()))
      throw RunError("libutf8proc", utf8proc_errmsg(count));
    points.insert(points.end(), parts.begin(), parts.begin() + count);
  }
  order_marks(points);
  const auto count =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (count < 0) throw RunError("libutf8proc", utf8proc_errmsg(count));
  memory.piece.clear();
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const auto size = utf8proc_encode_char(points[static_cast<size_t>(i)], bytes.data());
    memory.piece.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(size));
  }
}

}  // namespace

void NfcMemory::trim() {
  if (text.capacity() > kKeptBytes) text = {};
  if (piece.capacity() > kKeptBytes) piece = {};
  if (points.capacity() * sizeof(int32_t) > kKeptBytes) points = {};
}

std::string_view to_nfc(std::string_view text, NfcMemory& memory) {
  memory.text.clear();
  size_t done = 0;  // up to here memory.text holds the result; 0 while nothing has changed
  for (size_t at = find_unstable(text, 0); at < text.size();) {
    // A piece: all characters in a row that may change, and the one before, which they may join.
    size_t begin = at, end = at;
    if (at > 0) {
      const size_t before = unicode::char_before(text, at);
      size_t next = before;
      if (unicode::nfc_may_join(unicode::next_char(text, next))) begin = before;
    }
    while (end < text.size()) {
      size_t next = end;
      if (!unicode::nfc_may_change(unicode::next_char(text, next))) break;
      end = next;
    }
    const std::string_view piece = text.substr(begin, end - begin);
    normalize(piece, memory);
    if (memory.piece != piece) {
      memory.text.append(text, done, begin - done).append(memory.piece);
      done = end;
    }
    at = find_unstable(text, end);
  }
  if (done == 0) return text;
  return memory.text.append(text, done);
}

}  // namespace dsv3
