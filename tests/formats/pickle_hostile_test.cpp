// Hostile pickles, a case a way: each is refused with file and byte, exit code 3, in under a second and 64
// MB.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "dsv3/formats/pickle.h"
#include "formats/pickles.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using test::little;
using test::pickle_global;
using test::pickle_of;
using test::pickle_text;

constexpr std::string_view kGlobals[] = {"torch Size", "collections OrderedDict", "_codecs encode"};

PickleValue parse(std::string_view bytes, bool persistent_ids = false) {
  return parse_pickle(std::as_bytes(std::span(bytes.data(), bytes.size())), "a.pkl", "state",
                      {.globals = kGlobals, .persistent_ids = persistent_ids});
}
void refuse_bytes(std::string_view bytes, std::string_view part) {
  test::expect_input_error({"a.pkl: state byte ", part}, [&] { parse(bytes); });
  // The same piece by piece.
  test::TempDir dir;
  const InputFile file(test::write_file(dir / "b.pkl", bytes));
  test::expect_input_error({"b.pkl: state byte ", part},
                           [&] { parse_pickle(file, 0, file.size(), "state", {.globals = kGlobals}); });
}
void refuse(std::string_view opcodes, std::string_view part) { refuse_bytes(pickle_of(opcodes), part); }

TEST(PickleHostile, Row51GlobalOsSystem) {
  refuse("cos\nsystem\n" + pickle_text("true") + "\x85R.", "byte 2: global os system is not allowed");
  refuse("ctorch\nSize.__init__\n.", "global torch Size.__init__ is not allowed");
  refuse("c\x1b[31m\n\n.", "global \\x1b[31m  is not allowed");
  refuse("c" + std::string(10'000, 'a') + "\n.", "byte 2: a global's name of over 256 bytes");
  refuse("ctorch\nSize", "byte 2: the pickle ends within an opcode");
}
TEST(PickleHostile, Row52StackGlobalEval) {
  refuse(
      "\x8c\x08"
      "builtins\x8c\x04"
      "eval\x93.",
      "byte 18: global builtins eval is not allowed");
  refuse(
      "\x8c\x08"
      "builtinsK\x01\x93.",
      "STACK_GLOBAL of no names");
  refuse("\x8c\x05torch\x93.", "the stack is empty");
  refuse(pickle_text(std::string(100'000, 'x')) + "\x8c\x01y\x93.", "is not allowed");
}
TEST(PickleHostile, Row53ReduceOrBuildOnAnEmptyStack) {
  for (const char* opcodes :
       {"R.", "b.", ")R.", "Nb.", "\x81.", ".", "a.", "s.", "Q.", "\x94.", "\x85.", "N\x86.", "NN\x87."}) {
    refuse(opcodes, opcodes == std::string_view("Q.") ? "a reference to a storage" : "the stack is empty");
  }
  for (const char* opcodes : {"t.", "e.", "u."}) refuse(opcodes, "no mark on the stack");
  refuse("N(.", "byte 4: the stack is empty");  // not across a mark
  refuse("](Na.", "the stack is empty");
  refuse("K\x01)R.", "byte 5: calls what is no global");
  refuse(pickle_global("torch Size") + "NR.", "arguments that are no tuple");
  refuse("]Nb.", "BUILD on no object");
  refuse(pickle_global("torch Size") + ")\x81NbNb.", "a second BUILD");
  refuse(pickle_global("collections OrderedDict") + "N\x85R.", "an OrderedDict with arguments");
  test::expect_input_error({"the stack is empty"}, [] { parse(pickle_of("Q."), true); });
}
TEST(PickleHostile, Row54OddSetitemsAndSetitemsOnAList) {
  refuse("}(Nu.", "byte 5: SETITEMS of an odd number of values");
  refuse("](NNu.", "SETITEMS on no dict");
  refuse("]NNs.", "SETITEMS on no dict");
  refuse("}(Ne.", "APPENDS on no list");
  refuse(")Na.", "APPENDS on no list");
}
TEST(PickleHostile, Row55MemoIndex) {
  refuse("Nr" + little(1u << 30) + ".", "byte 3: memo index 1073741824, at most 0 expected");
  refuse("j" + little(1u << 30) + ".", "byte 2: memo index 1073741824, 0 were set");
  refuse("Nq" + std::string("\0h\1.", 4), "memo index 1, 1 were set");
}
TEST(PickleHostile, Row56TextsBeyondTheEnd) {
  for (const uint64_t size : {1ull << 63, ~0ull, 3ull}) {
    refuse("\x8d" + little(size) + ".", fmt::format("byte 2: a text of {} bytes, 1 are left", size));
  }
  refuse("X" + little(~0u) + "abc", "a text of 4294967295 bytes, 3 are left");
  refuse("B" + little(~0u) + "abc", "a text of 4294967295 bytes");
  refuse(
      "\x8c\x05"
      "abc",
      "a text of 5 bytes");
  refuse("\x95" + little(~0ull) + "N.", "byte 2: a frame of 18446744073709551615 bytes, 2 are left");
  refuse(
      "\x8a\x09"
      "123456789.",
      "an integer of 9 bytes");
  // A sparse file claims what it cannot hold in memory.
  test::TempDir dir;
  test::write_file(dir / "b", pickle_of("X" + little(1u << 30)));
  std::filesystem::resize_file(dir / "b", 2u << 30);
  test::expect_input_error({"a text of 1073741824 bytes, at most 16777216"}, [&] {
    parse_pickle(InputFile(dir / "b"), 0, 2u << 30, "state", {.globals = kGlobals});
  });
}
TEST(PickleHostile, Row57CyclesAndBombs) {
  const std::string put0("q\0", 2), get0("h\0", 2);
  refuse("]" + put0 + get0 + "a.", "a cycle");
  refuse("]" + put0 + get0 +
             "\x85"
             "a.",
         "a cycle");
  refuse("}" + put0 + "N" + get0 + "s.", "a cycle");
  refuse("}" + put0 + "N](" + get0 + "es.", "a cycle");
  refuse(pickle_global("torch Size") + ")\x81" + put0 + get0 + "b.", "a cycle");
  // Encoded again and again: 1 MB times 100,000.
  std::string bomb = pickle_global("_codecs encode") + put0 + pickle_text(std::string(1'000'000, 'x')) +
                     "q\x01" + pickle_text("latin1") + "q\x02((";
  for (int i = 0; i < 100'000; ++i) bomb += get0 + "h\x01h\x02\x86R";
  refuse(bomb + "t.", "encodes more text than the pickle holds");
  refuse(pickle_global("_codecs encode") + pickle_text("\xc4\x80") + pickle_text("latin1") + "\x86R.",
         "a character beyond latin1");
  refuse(pickle_global("_codecs encode") + pickle_text("a") + pickle_text("rot13") + "\x86R.",
         "_codecs encode");
  refuse("(" + std::string(500'000, ']') + "t.", "more values than its bytes can mean");
}
TEST(PickleHostile, Row58NestedDeep) {
  refuse(")" + std::string(100'000, '\x85') + ".", "nested deeper than 200 levels");
  refuse(std::string(1'000, ']') + std::string(999, 'a') + ".", "nested deeper than 200 levels");
  refuse(std::string(1'000'000, '('), "more than 1024 open marks");
  EXPECT_TRUE(parse(pickle_of(")" + std::string(199, '\x85') + ".")).is(PickleKind::tuple));
}
TEST(PickleHostile, Row62TruncatedOrBytesAfterStop) {
  const std::string whole = pickle_of("](" + pickle_global("torch Size") + "K\x01K\x02\x86\x85R" +
                                      pickle_text("text") + "J\x01\x02\x03\x04G12345678e.");
  EXPECT_EQ(parse(whole).items().size(), 4u);
  for (size_t size = 0; size < whole.size(); ++size) refuse_bytes(whole.substr(0, size), "");
  refuse_bytes(whole + "\n", fmt::format("byte {}: 1 bytes after STOP", whole.size() - 1));
  refuse("NN.", "STOP leaves values behind");
  refuse("(N.", "STOP leaves values behind");
}
TEST(PickleHostile, OtherOpcodesAndProtocols) {
  for (const char c :
       std::string_view("IiLlSTUVFdop0P12\x82\x83\x84\x8b\x8e\x8f\x90\x91\x92\x96\x97\x98\xff")) {
    refuse(std::string("N") + c,
           fmt::format("byte 3: opcode 0x{:02x} is not allowed", static_cast<unsigned char>(c)));
  }
  refuse("\x80\x04N.", "opcode 0x80 is not allowed");
  refuse_bytes("N.", "byte 0: is no pickle of protocol 2 to 5");
  refuse_bytes("\x80\x06N.", "protocol 6");
  refuse_bytes("\x80\x01N.", "protocol 1");
  for (const char* text : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"}) {
    refuse(pickle_text(text) + ".", "a text that is no UTF-8");
  }
}

}  // namespace
}  // namespace dsv3
