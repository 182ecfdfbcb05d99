#include "dsv3/base/json.h"

#include "support/files.h"

namespace dsv3 {
namespace {

using test::expect_input_error;

TEST(Json, ParsesEveryKindOfValueInOrder) {
  const Json json = parse_json(R"({"z":[1,-2,2.5,true,null,"ä"],"a":{"b":{}}})", "f");
  EXPECT_EQ(json.dump(), R"({"z":[1,-2,2.5,true,null,"ä"],"a":{"b":{}}})");
  EXPECT_EQ(parse_json(" 7 ", "f"), 7);
}

TEST(Json, DuplicateKeyIsNamedByItsPath) {
  expect_input_error({"f.json: a.1.b: duplicate key"},
                     [] { parse_json(R"({"a":[0,{"b":1,"c":2,"b":1}]})", "f.json"); });
  EXPECT_NO_THROW(parse_json(R"([{"b":1},{"b":2}])", "f"));
}

TEST(Json, NestingIsLimitedWithoutRecursion) {
  const std::string deep(100'000, '['), objects = [] {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += "{\"a\":";
    return text;
  }();
  expect_input_error({"f: ", "deeper than 64"}, [&] { parse_json(deep, "f"); });
  expect_input_error({"f: a.a.a", "deeper than 64"}, [&] { parse_json(objects, "f"); });
  EXPECT_NO_THROW(parse_json("[[1]]", "f", 2));
  expect_input_error({"deeper than 2"}, [] { parse_json("[[[1]]]", "f", 2); });
  const std::string raised = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_NO_THROW(parse_json(raised, "f", 200'000));  // nor do building and freeing recurse
}

TEST(Json, BadTextNamesTheByte) {
  expect_input_error({"f: byte 10: not valid JSON: ", "UTF-8"},
                     [] { parse_json("{\"abc\":\"x\xff\"}", "f"); });
  expect_input_error({"f: byte 3: not valid JSON: NUL byte"},
                     [] { parse_json(std::string_view("{} \0", 4), "f"); });
  expect_input_error({"f: byte", "expected end of input"}, [] { parse_json("{} 1", "f"); });
  expect_input_error({"f: byte"}, [] { parse_json("", "f"); });
  expect_input_error({"f: byte"}, [] { parse_json("{\"a\":", "f"); });
  expect_input_error({"f: byte"}, [] { parse_json("{\"a\":NaN}", "f"); });
  expect_input_error({"f: byte"}, [] { parse_json(R"("\ud800")", "f"); });
  expect_input_error({"f: byte"}, [] { parse_json(std::string(1 << 20, 'x'), "f"); });
}

TEST(Json, NumbersAreFinite) {
  expect_input_error({"f: byte", "1e999"}, [] { parse_json(R"({"rope_theta":1e999})", "f"); });
  EXPECT_EQ(parse_json("18446744073709551615", "f").get<uint64_t>(), ~0ull);
}

TEST(Json, LargeObjectsTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  text += "\"k5\":1}";
  expect_input_error({"k5: duplicate key"}, [&] { parse_json(text, "f"); });
}

TEST(Json, ReadsFiles) {
  test::TempDir dir;
  test::write_file(dir / "a.json", "[1]");
  EXPECT_EQ(read_json(dir / "a.json").dump(), "[1]");
  expect_input_error({"a.json: 3 bytes, at most 2"}, [&] { read_json(dir / "a.json", 2); });
}

}  // namespace
}  // namespace dsv3
