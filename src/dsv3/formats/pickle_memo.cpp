#include "dsv3/formats/pickle_memo.h"

#include <string_view>

namespace dsv3 {
namespace {

class MemoScan {
 public:
  explicit MemoScan(PickleBytes bytes) : bytes_(std::move(bytes)) {}

  std::vector<bool> run() {
    while (bytes_.left() > 0 && step(static_cast<unsigned char>(number<uint8_t>()))) {
    }
    return std::move(fetched_);
  }

 private:
  // False at the end.
  bool step(unsigned char opcode) {
    constexpr std::string_view kPlain = "(N)]}taesuRbQ\x81\x85\x86\x87\x88\x89\x93";
    if (kPlain.find(static_cast<char>(opcode)) != kPlain.npos) return true;
    switch (opcode) {
      case 'K':   // BININT1
      case 0x80:  // PROTO
        return skip(1);
      case 'M':  // BININT2
        return skip(2);
      case 'J':  // BININT
        return skip(4);
      case 'G':   // BINFLOAT
      case 0x95:  // FRAME
        return skip(8);
      case 0x8a:  // LONG1
      case 0x8c:  // SHORT_BINUNICODE
      case 'C':   // SHORT_BINBYTES
        return skip(number<uint8_t>());
      case 'X':  // BINUNICODE
      case 'B':  // BINBYTES
        return skip(number<uint32_t>());
      case 0x8d:  // BINUNICODE8
        return skip(number<uint64_t>());
      case 'c':  // GLOBAL
        return skip_line() && skip_line();
      case 'q':  // BINPUT
        return put(number<uint8_t>());
      case 'r':  // LONG_BINPUT
        return put(number<uint32_t>());
      case 0x94:  // MEMOIZE
        return put(fetched_.size());
      case 'h':  // BINGET
        return get(number<uint8_t>());
      case 'j':  // LONG_BINGET
        return get(number<uint32_t>());
      default:  // STOP too
        return false;
    }
  }

  // Zero at the end of the bytes: the parser will say so.
  template <class T>
  T number() {
    T value = 0;
    if (bytes_.left() >= sizeof(T)) bytes_.take(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  bool skip(uint64_t size) {
    if (size > bytes_.left()) return false;
    bytes_.skip(size);
    return true;
  }
  bool skip_line() {
    while (bytes_.left() > 0)
      if (number<char>() == '\n') return true;
    return false;
  }
  bool put(size_t index) {
    if (index == fetched_.size()) fetched_.push_back(false);
    return index < fetched_.size();
  }
  bool get(size_t index) {
    if (index < fetched_.size()) fetched_[index] = true;
    return index < fetched_.size();
  }

  PickleBytes bytes_;
  std::vector<bool> fetched_;  // as long as the memo
};

}  // namespace

std::vector<bool> find_fetched(PickleBytes bytes) { return MemoScan(std::move(bytes)).run(); }

}  // namespace dsv3
