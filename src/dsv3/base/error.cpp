#include "dsv3/base/error.h"

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
  const bool cut = text.size() > max_bytes;
  for (unsigned char c : text.substr(0, max_bytes)) {
    if (c >= 0x20 && c != 0x7f) {
      out += static_cast<char>(c);
    } else {
      out += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
    }
  }
  if (cut) out += "...";
  return out;
}

}  // namespace dsv3
