#pragma once
// Bytes in, whole UTF-8 sequences out: a terminal never sees half a character.

#include <string>
#include <string_view>

namespace dsv3 {

class Utf8Stream {
 public:
  // The text that became whole. Bytes that are no UTF-8 come out as U+FFFD.
  std::string add(std::string_view bytes) {
    std::string out;
    for (const char byte : bytes) {
      pending_ += byte;
      if (state() == State::broken && pending_.size() > 1) {
        // What came before is cut off; the byte may start a sequence of its own.
        out += kReplacement;
        pending_ = std::string(1, byte);
      }
      if (state() == State::prefix) continue;
      out += state() == State::whole ? std::string_view(pending_) : kReplacement;
      pending_.clear();
    }
    return out;
  }

  // What remains at the end.
  std::string finish() {
    const bool cut = !pending_.empty();
    pending_.clear();
    return cut ? std::string(kReplacement) : std::string();
  }

 private:
  enum class State { prefix, whole, broken };
  static constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

  // RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
  State state() const {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(pending_[i]); };
    const unsigned lead = byte(0);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : lead >= 0xE0 && lead < 0xF0 ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    if (length == 0) return State::broken;
    if (pending_.size() > 1) {
      const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      if (byte(1) < low || byte(1) > high) return State::broken;
    }
    for (size_t i = 2; i < pending_.size(); ++i)
      if (byte(i) < 0x80 || byte(i) > 0xBF) return State::broken;
    return pending_.size() < length ? State::prefix : State::whole;
  }

  std::string pending_;
};

}  // namespace dsv3
