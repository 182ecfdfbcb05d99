#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/data/regex.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

// White_Space, as items of a class. PCRE2's own \s holds U+180E besides.
constexpr std::string_view kSpace = R"(\t-\r\x{85}\p{Z})";
// Two letters that one letter of another script folds to: a match of (?i:…) that PCRE2 does not know.
constexpr std::string_view kFolds[] = {"ss", "ff", "fi", "fl", "st"};
constexpr size_t kMaxGroups = 100;

bool is_ascii_letter(uint32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view file, std::string_view field)
      : in_(pattern), file_(file), field_(field) {}

  std::string run() {
    groups_.push_back(false);
    while (at_ < in_.size()) item();
    if (groups_.size() != 1) fail("a group is not closed");
    return std::move(out_);
  }

 private:
  // at_ stands on what is refused, or behind it.
  [[noreturn]] void fail(std::string_view why) const {
    throw InputError(file_, field_, fmt::format("\"{}\": at byte {}: {}", printable(in_, 100), at_, why));
  }

  bool caseless() const { return groups_.back(); }
  bool starts(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!starts(text)) return false;
    at_ += text.size();
    return true;
  }

  void item() {
    const char c = in_[at_];
    if (c == '(') return open_group();
    if (c == ')') {
      if (groups_.size() == 1) fail("a group that was not opened");
      ++at_;
      out_ += ')';
      groups_.pop_back();
      return quantifier();
    }
    if (c == '|' || c == '$') {
      ++at_;
      if (c == '|' && groups_.size() > 1) out_ += "(?C)";
      out_ += c;
      last_letter_ = 0;
      return;
    }
    if (c == '^') fail("^ is not supported");
    if (c == '*' || c == '+' || c == '?' || c == '{') fail("nothing to repeat, or repeated twice");
    if (c == '[') {
      last_letter_ = 0;
      char_class();
    } else if (c == '.') {
      if (caseless()) fail(". in (?i:...) is not supported");
      ++at_;
      out_ += '.';
    } else if (c == '\\') {
      escape_outside();
    } else {
      literal(unicode::next_char(in_, at_));
    }
    quantifier();
  }

  void open_group() {
    if (groups_.size() > kMaxGroups) fail(fmt::format("more than {} groups in each other", kMaxGroups));
    bool fold = caseless();
    bool known = false;
    for (const std::string_view kind : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!take(kind)) continue;
      known = true;
      fold |= kind == "(?i:";
      out_ += kind;
      break;
    }
    if (!known) {
      if (starts("(?") || starts("(*")) fail("this kind of group is not supported");
      ++at_;
      out_ += "(?:";  // nothing refers to what a plain group captures
    }
    groups_.push_back(fold);
  }

  void literal(uint32_t c) {
    if (caseless()) {
      if (c >= 0x80) fail("(?i:...) is supported for ASCII alone");
      const char pair[] = {last_letter_, static_cast<char>(c | 0x20)};
      if (std::ranges::find(kFolds, std::string_view(pair, 2)) != std::end(kFolds)) {
        fail(fmt::format("\"{}\" in (?i:...) is not supported", std::string_view(pair, 2)));
      }
    }
    last_letter_ = caseless() && is_ascii_letter(c) ? static_cast<char>(c | 0x20) : 0;
    put(c);
  }
  void put(uint32_t c) {
    if (is_ascii_letter(c) || is_digit(c)) {
      out_ += static_cast<char>(c);
    } else {
      out_ += fmt::format("\\x{{{:x}}}", c);
    }
  }

  // A character that is written as an escape; at_ stands behind the backslash. false: it is none.
  bool escaped_char(uint32_t& c) {
    if (at_ == in_.size()) fail("a backslash at the end");
    const char name = in_[at_];
    static constexpr std::pair<char, char> kNames[] = {
        {'r', '\r'}, {'n', '\n'}, {'t', '\t'}, {'f', '\f'}, {'v', '\v'}};
    for (const auto& [letter, meaning] : kNames) {
      if (letter != name) continue;
      ++at_;
      c = static_cast<uint32_t>(meaning);
      return true;
    }
    if (name == 'u' || starts("x{")) {
      c = hexadecimal();
      return true;
    }
    if (static_cast<unsigned char>(name) >= 0x80) fail("a backslash before a character that needs none");
    if (is_ascii_letter(static_cast<unsigned char>(name)) || is_digit(static_cast<unsigned char>(name)))
      return false;
    ++at_;
    c = static_cast<unsigned char>(name);
    return true;
  }

  // uHHHH or x{H...}
  uint32_t hexadecimal() {
    const bool braces = in_[at_] == 'x';
    at_ += braces ? 2 : 1;
    const size_t length = braces ? std::min<size_t>(in_.find('}', at_), in_.size()) - at_ : 4;
    const std::string_view digits = in_.substr(at_, length);
    uint32_t c = 0;
    const bool good =
        digits.size() == length && length > 0 && length <= 6 && std::ranges::all_of(digits, [&](char d) {
          const bool letter = (d >= 'a' && d <= 'f') || (d >= 'A' && d <= 'F');
          c = c * 16 + static_cast<uint32_t>(letter ? (d | 0x20) - 'a' + 10 : d - '0');
          return letter || (d >= '0' && d <= '9');
        });
    if (!good || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) fail("is no code point");
    at_ += length + (braces ? 1 : 0);
    if (at_ > in_.size()) fail("a brace is not closed");
    return c;
  }

  void escape_outside() {
    ++at_;
    uint32_t c = 0;
    if (escaped_char(c)) return literal(c);
    last_letter_ = 0;
    bool negated = false;
    const std::string items = set(negated);
    out_ += (negated ? "[^" : "[") + items + "]";
  }

  // \s, \d, \p{NAME} and their negations as items of a class; at_ stands on the letter.
  std::string set(bool& negated) {
    if (caseless()) fail("a kind of characters in (?i:...) is not supported");
    const char letter = in_[at_];
    ++at_;
    negated = letter == 'S' || letter == 'D' || letter == 'P';
    if (letter == 's' || letter == 'S') return std::string(kSpace);
    if (letter == 'd' || letter == 'D') return property("Nd");
    if (letter != 'p' && letter != 'P') fail(fmt::format("\\{} is not supported", letter));
    if (!take("{")) fail("\\p without braces is not supported");
    if (take("^")) negated = !negated;
    const size_t close = in_.find('}', at_);
    if (close == in_.npos) fail("a brace is not closed");
    const std::string_view name = in_.substr(at_, close - at_);
    at_ = close + 1;
    return property(name);
  }
  std::string property(std::string_view name) const {
    std::span<const unicode::CharRange> newer;
    if (!unicode::newer_than_pcre2(name, newer)) {
      fail(fmt::format("\\p{{{}}} is not supported", printable(name, 32)));
    }
    std::string items = fmt::format("\\p{{{}}}", name);
    // Also by themselves: PCRE2 finds them faster than the property.
    if (name == "L") items += "A-Za-z";
    if (name == "N" || name == "Nd") items += "0-9";
    for (const unicode::CharRange& range : newer)
      items += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", range.first, range.last);
    return items;
  }

  void char_class() {
    ++at_;
    out_ += '[';
    if (take("^")) {
      if (caseless()) fail("a negated class in (?i:...) is not supported");
      out_ += '^';
    }
    if (starts("]")) fail("an empty class, or one that begins with ]");
    while (!take("]")) {
      if (at_ >= in_.size()) fail("a class is not closed");
      if (starts("[")) fail("a class in a class is not supported");
      if (starts("&&")) fail("&& in a class is not supported");
      class_item();
    }
    out_ += ']';
  }

  void class_item() {
    uint32_t first = 0;
    if (!class_char(first)) {
      if (starts("-") && !in_.substr(at_).starts_with("-]")) fail("a range from a kind of characters");
      return;
    }
    put(first);
    if (!starts("-") || in_.substr(at_).starts_with("-]")) return;
    ++at_;
    if (at_ >= in_.size() || starts("[")) fail("a range that does not end");
    uint32_t last = 0;
    if (!class_char(last)) fail("a range to a kind of characters");
    if (last < first) fail("a range that ends before it begins");
    out_ += '-';
    put(last);
  }
  // false: a kind of characters, whose items are written already.
  bool class_char(uint32_t& c) {
    if (!take("\\")) {
      c = unicode::next_char(in_, at_);
    } else if (!escaped_char(c)) {
      bool negated = false;
      const std::string items = set(negated);
      if (negated) fail("a negated kind of characters in a class is not supported");
      out_ += items;
      return false;
    }
    if (caseless() && c >= 0x80) fail("(?i:...) is supported for ASCII alone");
    return true;
  }

  void quantifier() {
    if (at_ >= in_.size()) return;
    const char c = in_[at_];
    if (c == '{') {
      counted();
    } else if (c == '*' || c == '+' || c == '?') {
      ++at_;
      out_ += c;
      if (take("?"))
        out_ += '?';
      else if (take("+"))
        out_ += '+';
    } else {
      return;
    }
    last_letter_ = 0;
  }
  // {n}, {n,} or {n,m}: what follows it means other things to both.
  void counted() {
    const size_t close = in_.find('}', at_);
    const std::string_view inner = close == in_.npos ? "" : in_.substr(at_ + 1, close - at_ - 1);
    const size_t comma = inner.find(',');
    const std::string_view low = inner.substr(0, comma),
                           high = comma == inner.npos ? "" : inner.substr(comma + 1);
    const auto is_count = [](std::string_view text) {
      return text.size() <= 3 && std::ranges::all_of(text, [](char d) { return d >= '0' && d <= '9'; });
    };
    if (low.empty() || !is_count(low) || !is_count(high)) fail("is no {n}, {n,} or {n,m}");
    at_ = close + 1;
    if (starts("?") || starts("+")) fail("{n,m} with ? or + behind it is not supported");
    out_ += fmt::format("{{{}}}", inner);
  }

  std::string_view in_, file_, field_;
  size_t at_ = 0;
  std::string out_;
  std::vector<bool> groups_;  // the open ones: whether case is ignored in them
  char last_letter_ = 0;      // in (?i:…), the letter before, in lower case
};

}  // namespace

std::string to_pcre2(std::string_view pattern, std::string_view file, std::string_view field) {
  return Translator(pattern, file, field).run();
}

}  // namespace dsv3
