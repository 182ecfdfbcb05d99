#include "dsv3/formats/pickle.h"

#include <gtest/gtest.h>

#include <limits>

#include "formats/pickles.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using test::little;
using test::pickle_global;
using test::pickle_of;
using test::pickle_text;

constexpr std::string_view kGlobals[] = {"torch Size", "collections OrderedDict", "_codecs encode"};

PickleValue parse(std::string_view bytes) {
  return parse_pickle(std::as_bytes(std::span(bytes.data(), bytes.size())), "a.pkl", "field",
                      {.globals = kGlobals, .persistent_ids = true});
}
TEST(Pickle, EveryKindSurvives) {
  using V = PickleValue;
  std::vector<V> numbers;
  for (const int64_t i : {0l, 255l, 256l, 65535l, 65536l, -1l, 1l << 31, -(1l << 31), -(1l << 31) - 1,
                          std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    numbers.push_back(V::of_int(i));
  }
  std::vector<V> texts;
  for (int i = 0; i < 300; ++i) texts.push_back(V::of_text("text " + std::to_string(i)));
  texts.push_back(V::of_text("text 299"));  // from the memo, by an index of four bytes
  const V value = V::of_tuple(
      {V(), V::of_bool(true), V::of_bool(false), V::of_list(numbers), V::of_real(-0.1), V::of_list(texts),
       V::of_bytes("\xff\x01"), V::of_tuple({}), V::of_tuple({V()}), V::of_tuple({V(), V()}),
       V::of_tuple({V(), V(), V()}), V::of_dict({{V::of_int(1), V::of_dict({})}}),
       V::of_call("torch Size", {V::of_tuple({V::of_int(3)})}), V::of_instance("torch Size", V()),
       V::of_instance("torch Size", V::of_dict({})), V::of_persistent(V::of_text("0")),
       V::of_global("torch Size")});
  const std::string bytes = write_pickle(value);
  const V read = parse(bytes);
  EXPECT_EQ(write_pickle(read), bytes);
  ASSERT_EQ(read.items().size(), 17u);
  for (size_t i = 0; i < numbers.size(); ++i) {
    EXPECT_EQ(read.items()[3].items()[i].integer(), numbers[i].integer());
  }
  EXPECT_EQ(read.items()[5].items()[300].text(), "text 299");
  EXPECT_EQ(read.items()[6].text(), "\xff\x01");
  EXPECT_TRUE(read.items()[12].is_call("torch Size"));
  EXPECT_EQ(read.items()[12].args()[0].items()[0].integer(), 3);
  EXPECT_EQ(read.items()[13].state(), nullptr);
  EXPECT_TRUE(read.items()[14].state()->is(PickleKind::dict));
}

TEST(Pickle, OpcodesOfProtocol4And5) {
  const std::string frame = "\x95" + little(uint64_t{9});
  EXPECT_EQ(parse("\x80\x05" + frame + "\x8c\x02hi\x94K\x01\x86.").items()[0].text(), "hi");
  EXPECT_EQ(parse(pickle_of("\x8d" + little(uint64_t{2}) + "hi.")).text(), "hi");
  EXPECT_EQ(parse(pickle_of("B" + little(2u) + "\xff\xfe.")).text(), "\xff\xfe");
  EXPECT_EQ(parse(pickle_of("\x43\x02\xff\xfe.")).text(), "\xff\xfe");
  EXPECT_EQ(parse(pickle_of(std::string("\x8a\x00.", 3))).integer(), 0);
  EXPECT_EQ(parse(pickle_of(std::string("\x8a\x02\x00\xff.", 5))).integer(), -256);
  EXPECT_EQ(parse(pickle_of("]K\x05\x61.")).items()[0].integer(), 5);
  EXPECT_EQ(parse(pickle_of("}K\x05Ns.")).items()[0].integer(), 5);
  EXPECT_EQ(parse(pickle_of("\x8c\x05torch\x8c\x04Size\x93.")).text(), "torch Size");
  EXPECT_TRUE(parse(pickle_of(pickle_global("collections OrderedDict") + ")RK\x01Ns.")).is(PickleKind::dict));
}

// One value at many places is held once.
TEST(Pickle, SharedValuesAreNotCopied) {
  std::string opcodes = ")\x94";
  for (int i = 0; i < 150; ++i) opcodes += "h" + little(static_cast<uint8_t>(i)) + "\x86\x94";
  const PickleValue value = parse(pickle_of(opcodes + "."));
  EXPECT_EQ(&value.items()[0].items()[0], &value.items()[1].items()[0]);
}

}  // namespace
}  // namespace dsv3
