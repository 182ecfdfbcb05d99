#include <bit>
#include <limits>
#include <stdexcept>

#include "dsv3/formats/pickle_writer.h"

namespace dsv3 {

void PickleWriter::save(const PickleValue& value) {
  switch (value.kind()) {
    case PickleKind::none:
      out_ += 'N';
      break;
    case PickleKind::boolean:
      out_ += value.boolean() ? '\x88' : '\x89';
      break;
    case PickleKind::integer:
      integer(value.integer());
      break;
    case PickleKind::real:
      out_ += 'G';  // the one big-endian opcode
      little(__builtin_bswap64(std::bit_cast<uint64_t>(value.real())));
      break;
    case PickleKind::text:
      text(value.text());
      break;
    case PickleKind::bytes:
      bytes(value.text());
      break;
    case PickleKind::tuple:
      tuple(value.items());
      break;
    case PickleKind::list:
      out_ += ']';
      marked(value.items(), 'e');
      break;
    case PickleKind::dict:
      out_ += '}';
      marked(value.items(), 'u');
      break;
    case PickleKind::global:
      global(value.text());
      break;
    case PickleKind::call:
    case PickleKind::instance:
      save(value.items()[0]);
      save(value.items()[1]);
      out_ += value.is(PickleKind::call) ? 'R' : '\x81';
      if (const PickleValue* state = value.state()) {
        save(*state);
        out_ += 'b';
      }
      break;
    case PickleKind::persistent:
      save(value.items()[0]);
      out_ += 'Q';
      break;
    case PickleKind::folded:
      throw std::logic_error("a folded value has no pickle");
  }
}

void PickleWriter::integer(int64_t value) {
  if (value >= 0 && value <= 255) {
    out_ += 'K';
    little(static_cast<uint8_t>(value));
  } else if (value >= 0 && value <= 65535) {
    out_ += 'M';
    little(static_cast<uint16_t>(value));
  } else if (value == static_cast<int32_t>(value)) {
    out_ += 'J';
    little(static_cast<int32_t>(value));
  } else {
    out_ += "\x8a\x08";
    little(value);
  }
}

void PickleWriter::marked(std::span<const PickleValue> items, char opcode) {
  if (items.empty()) return;
  out_ += '(';
  for (const PickleValue& item : items) save(item);
  out_ += opcode;
}

void PickleWriter::tuple(std::span<const PickleValue> items) {
  if (items.empty()) {
    out_ += ')';
  } else if (items.size() > 3) {
    marked(items, 't');
  } else {
    for (const PickleValue& item : items) save(item);
    out_ += static_cast<char>('\x84' + items.size());
  }
}

// Protocol 2 has no opcode for bytes; this is how Python writes them there.
void PickleWriter::bytes(std::string_view value) {
  std::string utf8;
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      utf8 += c;
    } else {
      utf8 += static_cast<char>(0xc0 | byte >> 6);
      utf8 += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  global("_codecs encode");
  unicode(utf8);
  unicode("latin1");
  out_ += "\x86R";
}

void PickleWriter::text(const std::string& value) {
  if (!recall(texts_, value)) {
    unicode(value);
    memoize(texts_, value);
  }
}

void PickleWriter::unicode(std::string_view value) {
  if (value.size() > std::numeric_limits<uint32_t>::max()) throw std::logic_error("a text of over 4 GiB");
  out_ += 'X';
  little(static_cast<uint32_t>(value.size()));
  out_ += value;
}

void PickleWriter::global(const std::string& name) {
  if (recall(globals_, name)) return;
  const size_t space = name.find(' ');
  if (space == name.npos) throw std::logic_error(name + ": a global is \"module name\"");
  out_.append("c").append(name, 0, space).append("\n").append(name, space + 1).append("\n");
  memoize(globals_, name);
}

bool PickleWriter::recall(const Memo& memo, const std::string& name) {
  const auto it = memo.find(name);
  if (it == memo.end()) return false;
  numbered('h', 'j', it->second);
  return true;
}

void PickleWriter::memoize(Memo& memo, const std::string& name) {
  memo.emplace(name, next_);
  numbered('q', 'r', next_++);
}

void PickleWriter::numbered(char opcode, char long_opcode, uint32_t number) {
  if (number < 256) {
    out_ += opcode;
    little(static_cast<uint8_t>(number));
  } else {
    out_ += long_opcode;
    little(number);
  }
}

std::string write_pickle(const PickleValue& value) {
  PickleWriter writer;
  writer.save(value);
  return writer.finish();
}

}  // namespace dsv3
