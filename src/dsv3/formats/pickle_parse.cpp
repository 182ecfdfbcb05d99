#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <unordered_map>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/formats/pickle_bytes.h"
#include "dsv3/formats/pickle_memo.h"
#include "dsv3/formats/pickle_value.h"
#include "dsv3/formats/utf8.h"

namespace dsv3 {

static_assert(std::endian::native == std::endian::little, "numbers are read as they stand");

namespace {

constexpr size_t kMaxText = 16u << 20;
constexpr size_t kMaxGlobal = 256;  // bytes of a line of GLOBAL
constexpr size_t kMaxMarks = 1024;  // open containers: about two for each level
constexpr uint64_t kFreeNodes = 65'536;

// Characters to U+00FF as bytes; nothing when there is a larger one. text is valid UTF-8.
std::optional<std::string> latin1(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto first = static_cast<unsigned char>(text[0]);
    if (first > 0xc3) return std::nullopt;
    out += static_cast<char>(first < 0x80 ? first : (first & 3) << 6 | (text[1] & 0x3f));
    text.remove_prefix(first < 0x80 ? 1 : 2);
  }
  return out;
}

}  // namespace

class PickleParser {
 public:
  PickleParser(PickleBytes bytes, std::string_view file, std::string_view field, const PickleRules& rules)
      : bytes_(std::move(bytes)), file_(file), field_(field), rules_(rules), fetched_(find_fetched(bytes_)) {}

  PickleValue parse() {
    if (const int opcode = next_opcode(); opcode != 0x80) fail("is no pickle of protocol 2 to 5");
    if (const int protocol = number<uint8_t>(); protocol < 2 || protocol > 5) {
      fail(fmt::format("protocol {}, expected 2 to 5", protocol));
    }
    for (int opcode = next_opcode(); opcode != '.'; opcode = next_opcode()) obey(opcode);
    PickleValue value = pop();
    if (!stack_.empty() || !marks_.empty()) fail("STOP leaves values behind");
    if (bytes_.left() != 0) fail(fmt::format("{} bytes after STOP", bytes_.left()));
    return value;
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw InputError(file_, fmt::format("{}{}byte {}", field_, field_.empty() ? "" : " ", at_), why);
  }

  int next_opcode() {
    at_ = bytes_.position();
    if (bytes_.left() == 0) fail("the pickle ends before STOP");
    return number<uint8_t>();
  }

  void obey(int opcode) {
    switch (opcode) {
      case 0x95:  // FRAME
        if (const auto length = number<uint64_t>(); length > bytes_.left()) {
          fail(fmt::format("a frame of {} bytes, {} are left", length, bytes_.left()));
        }
        return;
      case '(':  // MARK
        if (marks_.size() == kMaxMarks) fail(fmt::format("more than {} open marks", kMaxMarks));
        marks_.push_back(stack_.size());
        return;
      case 'N':
        return push(PickleValue());
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        return push(PickleValue::of_bool(opcode == 0x88));
      case 'J':  // BININT
        return push(PickleValue::of_int(number<int32_t>()));
      case 'K':  // BININT1
        return push(PickleValue::of_int(number<uint8_t>()));
      case 'M':  // BININT2
        return push(PickleValue::of_int(number<uint16_t>()));
      case 0x8a:  // LONG1
        return push(long1());
      case 'G':  // BINFLOAT, big-endian
        return push(PickleValue::of_real(std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()))));
      case 'X':  // BINUNICODE
        return push_text(PickleKind::text, number<uint32_t>());
      case 0x8c:  // SHORT_BINUNICODE
        return push_text(PickleKind::text, number<uint8_t>());
      case 0x8d:  // BINUNICODE8
        return push_text(PickleKind::text, number<uint64_t>());
      case 'B':  // BINBYTES
        return push_text(PickleKind::bytes, number<uint32_t>());
      case 'C':  // SHORT_BINBYTES
        return push_text(PickleKind::bytes, number<uint8_t>());
      case ')':  // EMPTY_TUPLE
        return push(make(PickleKind::tuple));
      case ']':  // EMPTY_LIST
        return push(make(PickleKind::list));
      case '}':  // EMPTY_DICT
        return push(make(PickleKind::dict));
      case 't':  // TUPLE
        return push(make(PickleKind::tuple, pop_mark()));
      case 0x85:  // TUPLE1
      case 0x86:  // TUPLE2
      case 0x87:  // TUPLE3
        return push(make(PickleKind::tuple, pop_last(static_cast<size_t>(opcode - 0x84))));
      case 'a':  // APPEND
        return extend(PickleKind::list, pop_last(1));
      case 'e':  // APPENDS
        return extend(PickleKind::list, pop_mark());
      case 's':  // SETITEM
        return extend(PickleKind::dict, pop_last(2));
      case 'u':  // SETITEMS
        return extend(PickleKind::dict, pop_mark());
      case 'q':  // BINPUT
        return put(number<uint8_t>());
      case 'r':  // LONG_BINPUT
        return put(number<uint32_t>());
      case 0x94:  // MEMOIZE
        return put(memo_size_);
      case 'h':  // BINGET
        return get(number<uint8_t>());
      case 'j':  // LONG_BINGET
        return get(number<uint32_t>());
      case 'c': {  // GLOBAL
        const std::string module = line();
        return push_global(module, line());
      }
      case 0x93: {  // STACK_GLOBAL
        const PickleValue name = pop(), module = pop();
        if (!name.is(PickleKind::text) || !module.is(PickleKind::text)) fail("STACK_GLOBAL of no names");
        return push_global(module.text(), name.text());
      }
      case 'R':  // REDUCE
        return reduce();
      case 0x81:  // NEWOBJ
        return push(make(PickleKind::instance, pop_call()));
      case 'b':  // BUILD
        return build();
      case 'Q':  // BINPERSID
        if (!rules_.persistent_ids) fail("a reference to a storage, where none belongs");
        return push(make(PickleKind::persistent, pop_last(1)));
      default:
        fail(fmt::format("opcode 0x{:02x} is not allowed", opcode));
    }
  }

  // --- Bytes.
  template <class T>
  T number() {
    if (bytes_.left() < sizeof(T)) fail("the pickle ends within an opcode");
    T value;
    bytes_.take(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  std::string line() {
    std::string out;
    for (char c = number<char>(); c != '\n'; c = number<char>()) {
      if (out.size() == kMaxGlobal) fail(fmt::format("a global's name of over {} bytes", kMaxGlobal));
      out += c;
    }
    return out;
  }

  PickleValue long1() {
    const size_t size = number<uint8_t>();
    if (size > 8) fail(fmt::format("an integer of {} bytes, at most 8 expected", size));
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= uint64_t{number<uint8_t>()} << 8 * i;
    const size_t unused = size == 0 ? 0 : 64 - 8 * size;  // spreads the sign
    return PickleValue::of_int(static_cast<int64_t>(value << unused) >> unused);
  }

  void push_text(PickleKind kind, uint64_t size) {
    if (size > bytes_.left()) fail(fmt::format("a text of {} bytes, {} are left", size, bytes_.left()));
    if (size > kMaxText) fail(fmt::format("a text of {} bytes, at most {} expected", size, kMaxText));
    PickleValue value = make(kind);
    std::string& text = value.node()->text;
    text.resize(size);
    bytes_.take(std::as_writable_bytes(std::span(text)));
    if (kind == PickleKind::text && !is_utf8(text)) fail("a text that is no UTF-8");
    push(std::move(value));
  }

  // --- Nodes.
  PickleValue make(PickleKind kind, std::vector<PickleValue> items = {}) {
    // The smallest node takes a byte, but not one after the other in anything that a pickler writes.
    if (++num_nodes_ > kFreeNodes + bytes_.size() / 2) fail("more values than its bytes can mean");
    auto node = std::make_shared<PickleNode>();
    node->kind = kind;
    for (const PickleValue& item : items) adopt(*node, item);
    node->items = std::move(items);
    return PickleValue(std::move(node));
  }

  void adopt(PickleNode& parent, const PickleValue& item) const {
    PickleNode* child = item.node();
    if (child == nullptr) return;
    if (child->levels >= PickleValue::kMaxDepth) {
      fail(fmt::format("nested deeper than {} levels", PickleValue::kMaxDepth));
    }
    child->sealed = true;
    parent.levels = std::max<uint16_t>(parent.levels, child->levels + 1);
  }

  void add(PickleNode& parent, std::vector<PickleValue> items) const {
    for (const PickleValue& item : items) adopt(parent, item);
    if (parent.sealed) fail("changes a value that others hold already: a cycle");
    // insert() grows by factors, so many small additions stay linear.
    parent.items.insert(parent.items.end(), std::make_move_iterator(items.begin()),
                        std::make_move_iterator(items.end()));
  }

  // --- Stack and memo.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  void push(PickleValue value) { stack_.push_back(std::move(value)); }
  PickleValue& top() {
    if (stack_.size() <= floor()) fail("the stack is empty");
    return stack_.back();
  }
  PickleValue pop() {
    PickleValue value = std::move(top());
    stack_.pop_back();
    return value;
  }
  std::vector<PickleValue> pop_last(size_t count) {
    if (stack_.size() - floor() < count) fail("the stack is empty");
    const auto first = stack_.end() - static_cast<ptrdiff_t>(count);
    std::vector<PickleValue> items(std::make_move_iterator(first), std::make_move_iterator(stack_.end()));
    stack_.erase(first, stack_.end());
    return items;
  }
  std::vector<PickleValue> pop_mark() {
    if (marks_.empty()) fail("no mark on the stack");
    auto items = pop_last(stack_.size() - marks_.back());
    marks_.pop_back();
    return items;
  }
  // Picklers number their memo from 0 without gaps.
  void put(uint32_t index) {
    if (index > memo_size_) fail(fmt::format("memo index {}, at most {} expected", index, memo_size_));
    const PickleValue& value = top();
    if (index == memo_size_) ++memo_size_;
    if (index < fetched_.size() && fetched_[index]) memo_[index] = value;
  }
  void get(uint32_t index) {
    if (index >= memo_size_) fail(fmt::format("memo index {}, {} were set", index, memo_size_));
    const auto it = memo_.find(index);
    if (it == memo_.end()) fail("the file changed while it was read");
    push(it->second);
  }

  // --- Containers, globals and objects.
  void extend(PickleKind kind, std::vector<PickleValue> items) {
    const bool is_dict = kind == PickleKind::dict;
    if (is_dict && items.size() % 2 != 0) fail("SETITEMS of an odd number of values");
    if (!top().is(kind)) fail(is_dict ? "SETITEMS on no dict" : "APPENDS on no list");
    add(*top().node(), std::move(items));
  }

  void push_global(std::string_view module, std::string_view name) {
    const std::string full = fmt::format("{} {}", module.substr(0, kMaxGlobal), name.substr(0, kMaxGlobal));
    const auto it = std::ranges::find(rules_.globals, full);
    if (it == rules_.globals.end()) fail(fmt::format("global {} is not allowed", printable(full)));
    PickleValue& shared = globals_[full];
    if (shared.is(PickleKind::none)) {
      shared = make(PickleKind::global);
      shared.node()->text = full;
    }
    push(shared);
  }

  // Pops a callable and its tuple of arguments.
  std::vector<PickleValue> pop_call() {
    auto parts = pop_last(2);
    if (!parts[0].is(PickleKind::global)) fail("calls what is no global");
    if (!parts[1].is(PickleKind::tuple)) fail("arguments that are no tuple");
    return parts;
  }

  void reduce() {
    auto parts = pop_call();
    const auto args = parts[1].items();
    if (parts[0].is_global("collections OrderedDict")) {
      if (!args.empty()) fail("an OrderedDict with arguments");
      return push(make(PickleKind::dict));
    }
    if (parts[0].is_global("_codecs encode")) {
      if (args.size() != 2 || !args[0].is(PickleKind::text) || !args[1].is(PickleKind::text) ||
          args[1].text() != "latin1") {
        fail("_codecs encode of anything but latin1 text");
      }
      // A text of the memo, encoded again and again, must not grow beyond the file.
      encoded_ += args[0].text().size();
      if (encoded_ > bytes_.size()) fail("encodes more text than the pickle holds");
      auto text = latin1(args[0].text());
      if (!text) fail("_codecs encode of a character beyond latin1");
      PickleValue value = make(PickleKind::bytes);
      value.node()->text = std::move(*text);
      return push(std::move(value));
    }
    push(folded(make(PickleKind::call, std::move(parts))));
  }

  void build() {
    auto state = pop_last(1);
    PickleValue& object = top();
    if (!object.is(PickleKind::call) && !object.is(PickleKind::instance)) fail("BUILD on no object");
    if (object.state() != nullptr) fail("a second BUILD of an object");
    add(*object.node(), std::move(state));
    object = folded(object);
  }
  PickleValue folded(PickleValue object) const {
    if (!rules_.fold) return object;
    const auto kept = rules_.fold(object);
    return kept ? PickleValue(*kept) : object;
  }

  PickleBytes bytes_;
  std::string_view file_, field_;
  const PickleRules& rules_;
  uint64_t at_ = 0;  // byte of the current opcode
  std::vector<PickleValue> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<std::string, PickleValue> globals_;
  std::vector<bool> fetched_;                            // by index in the memo: find_fetched()
  std::unordered_map<uint32_t, PickleValue> memo_ = {};  // of those that are
  uint32_t memo_size_ = 0;
  uint64_t num_nodes_ = 0, encoded_ = 0;
};

PickleValue parse_pickle(std::span<const std::byte> bytes, std::string_view file, std::string_view field,
                         const PickleRules& rules) {
  return PickleParser(PickleBytes(bytes), file, field, rules).parse();
}

PickleValue parse_pickle(const InputFile& file, uint64_t begin, uint64_t size, std::string_view field,
                         const PickleRules& rules) {
  return PickleParser(PickleBytes(file, begin, size), file.path(), field, rules).parse();
}

}  // namespace dsv3
