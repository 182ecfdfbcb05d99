#include "dsv3/base/error.h"

#include <algorithm>

#include "dsv3/base/trace.h"

namespace dsv3 {
namespace {

std::string join(std::string_view where, std::string_view what, std::string_view hint) {
  std::string text(where);
  if (!text.empty()) text += ": ";
  text += what;
  if (!hint.empty()) text.append(" (").append(hint).append(")");
  return text;
}

std::string file_and_field(std::string_view file, std::string_view field) {
  std::string text = printable(file, 400);
  if (!field.empty()) text.append(": ").append(printable(field));
  return text;
}

}  // namespace

Error::Error(ExitCode code, std::string_view where, std::string_view what, std::string_view hint)
    : std::runtime_error(join(where, what, hint)), code_(code) {
  record_error_trace();
}

InputError::InputError(std::string_view file, std::string_view field, std::string_view why,
                       std::string_view hint)
    : Error(ExitCode::content, file_and_field(file, field), why, hint) {}

std::string printable(std::string_view text, size_t max_bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  const std::string_view shown = text.substr(0, max_bytes);
  int inside = 0;  // bytes of a character that are still to come
  for (size_t i = 0; i < shown.size(); ++i) {
    const auto c = static_cast<unsigned char>(shown[i]);
    const bool more = (c & 0xC0) == 0x80;
    // U+0080 to U+009F are controls too; a terminal that reads bytes obeys them also by themselves.
    const bool c1 = c == 0xC2 && i + 1 < shown.size() && (shown[i + 1] & 0xE0) == 0x80;
    const bool plain = more ? inside > 0 : c >= 0x20 && c != 0x7f && !c1;
    if (plain) {
      out += static_cast<char>(c);
    } else {
      out += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
    }
    inside = more ? std::max(0, inside - 1) : c1 || c < 0xC0 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
  }
  if (shown.size() < text.size()) out += "...";
  return out;
}

}  // namespace dsv3
