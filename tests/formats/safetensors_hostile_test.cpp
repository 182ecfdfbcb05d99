// Hostile safetensors files, a case a way: each is refused with file and tensor (or byte), exit code 3, in
// under a second and 64 MB.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>

#include "dsv3/formats/safetensors.h"
#include "support/files.h"

namespace dsv3 {
namespace {

class SafetensorsHostile : public testing::Test {
 protected:
  std::filesystem::path path() const { return dir_ / "x.safetensors"; }

  void write(uint64_t length, std::string_view header, std::string_view data = "") {
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    test::write_file(path(), file.append(header).append(data));
  }
  void refuse_file(std::initializer_list<std::string_view> parts) {
    test::expect_input_error({"x.safetensors: "}, [&] { SafetensorsFile file(path()); });
    test::expect_input_error(parts, [&] { SafetensorsFile file(path()); });
  }
  // A whole file with this header and `data` bytes of data.
  void refuse(std::string_view header, size_t data, std::initializer_list<std::string_view> parts) {
    write(header.size(), header, std::string(data, 'x'));
    refuse_file(parts);
  }
  static std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                           std::string_view offsets) {
    return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
  }
  static std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return "{" + entry("w", dtype, shape, offsets) + "}";
  }
  static std::string two(std::string_view first, std::string_view second) {
    return fmt::format("{{{},{}}}", first, second);
  }

  test::TempDir dir_;
};

TEST_F(SafetensorsHostile, Row01FileUnder8Bytes) {
  for (size_t size = 0; size < 8; ++size) {
    test::write_file(path(), std::string(size, '\1'));
    refuse_file({"byte 0", "no safetensors file"});
  }
}
TEST_F(SafetensorsHostile, Row02HeaderLongerThanFile) {
  write(3, "{}");
  refuse_file({"byte 0: header length 3 in a file of 10 bytes"});
  write(90'000'000, "{}");
  refuse_file({"header length 90000000"});
}
TEST_F(SafetensorsHostile, Row03HeaderLengthOfAllOnes) {
  write(~0ull, "{}");
  refuse_file({"header length 18446744073709551615"});
}
TEST_F(SafetensorsHostile, Row04HeaderOver100MB) {
  write(100'000'001, "{}");
  std::filesystem::resize_file(path(), 100'000'009);
  refuse_file({"header length 100000001, at most 100000000"});
}
TEST_F(SafetensorsHostile, Row05TruncatedHeader) {
  const std::string header = one("U8", "[1]", "[0,1]");
  for (size_t size = 0; size < header.size(); ++size) refuse(header.substr(0, size), 1, {"byte"});
}
TEST_F(SafetensorsHostile, Row06NotUtf8) {
  refuse("{" + entry("w\xff", "U8", "[1]", "[0,1]") + "}", 1, {"byte 12", "UTF-8"});
  refuse("{" + entry("w\xed\xa0\x80", "U8", "[1]", "[0,1]") + "}", 1, {"UTF-8"});
}
TEST_F(SafetensorsHostile, Row07TopLevelArray) {
  refuse("[]", 0, {"byte 8: the header is no JSON object"});
  refuse("7", 0, {"no JSON object"});
  refuse(" {}", 0, {"no JSON object"});
}
TEST_F(SafetensorsHostile, Row08NestedDeep) {
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  refuse(objects, 0, {"a.a: unknown key"});
  refuse(R"({"w":{"shape":)" + std::string(100'000, '['), 0, {"w.shape", "array"});
  refuse(R"({"w":)" + std::string(100'000, '['), 0, {"w: an array"});
  refuse(R"({"__metadata__":{"a":)" + std::string(100'000, '['), 0, {"__metadata__.a", "array"});
  refuse(std::string(100'000, '['), 0, {"no JSON object"});
}
TEST_F(SafetensorsHostile, Row09DuplicateKeyWithTheSameOffsets) {
  const std::string w = entry("w", "U8", "[1]", "[0,1]");
  refuse(two(w, w), 1, {"w", "duplicate key"});
  refuse(two(w, w), 2, {"w: duplicate key"});
  refuse(two(w, entry("w", "U8", "[1]", "[1,2]")), 2, {"w: duplicate key"});
  refuse(R"({"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
         {"w.dtype: duplicate key"});
}
TEST_F(SafetensorsHostile, Row10DuplicateMetadata) {
  refuse(R"({"__metadata__":{},"__metadata__":{}})", 0, {"__metadata__: duplicate key"});
  refuse(R"({"__metadata__":{"a":"1","a":"1"}})", 0, {"__metadata__.a: duplicate key"});
}
TEST_F(SafetensorsHostile, Row11MetadataThatIsNoString) {
  for (const char* value : {"1", "-1", "1.5", "null", "true", "{}", "[]"}) {
    refuse(fmt::format(R"({{"__metadata__":{{"a":{}}}}})", value), 0, {"__metadata__.a: "});
  }
  for (const char* value : {"1", "-1", "1.5", "null", "true", "[]", "\"a\""}) {
    refuse(fmt::format(R"({{"__metadata__":{}}})", value), 0, {"__metadata__: "});
  }
  refuse("{" + entry("__metadata__", "U8", "[1]", "[0,1]") + "}", 1, {"__metadata__.shape: an array"});
}
TEST_F(SafetensorsHostile, Row12MillionOverlappingTensors) {
  for (const bool shifted : {false, true}) {
    std::string header = "{";
    header.reserve(70'000'000);
    for (int i = 0; i < 1'000'000; ++i) {
      const int begin = shifted ? i : 0;
      header += (i ? "," : "") +
                entry("t" + std::to_string(i), "U8", "[4]", fmt::format("[{},{}]", begin, begin + 4));
    }
    refuse(header + "}", shifted ? 1'000'003 : 4, {"t", "overlaps"});
  }
  refuse(two(entry("a", "U8", "[2]", "[0,2]"), entry("b", "U8", "[2]", "[1,3]")), 4,
         {"b: begins at 1, overlaps"});
  refuse(two(entry("a", "U8", "[4]", "[0,4]"), entry("b", "U8", "[0]", "[2,2]")), 4,
         {"b: begins at 2, overlaps"});
}
TEST_F(SafetensorsHostile, Row13HoleBetweenTensors) {
  refuse(two(entry("a", "U8", "[2]", "[0,2]"), entry("b", "U8", "[2]", "[3,5]")), 5,
         {"b: begins at 3: bytes 2 to"});
  refuse(one("U8", "[1]", "[1,2]"), 2, {"w: begins at 1: bytes 0 to"});
}
TEST_F(SafetensorsHostile, Row14TrailingBytes) {
  refuse(one("U8", "[1]", "[0,1]"), 3, {"byte 62: 2 trailing bytes"});
  refuse("{}", 1, {"byte 10: 1 trailing"});
}
TEST_F(SafetensorsHostile, Row15BeginAfterEnd) {
  refuse(one("U8", "[1]", "[2,1]"), 2, {"w.data_offsets: [2, 1] ends before it begins"});
}
TEST_F(SafetensorsHostile, Row16OffsetsThatAreNone) {
  refuse(one("U8", "[1]", "[-1,0]"), 1, {"w.data_offsets: -1 is negative"});
  refuse(one("U8", "[1]", "[-0,1]"), 1, {"w.data_offsets: "});
  refuse(one("U8", "[1]", "[0,1.0]"), 1, {"w.data_offsets: 1.0 is no integer"});
  refuse(one("U8", "[1]", "[0,1e0]"), 1, {"w.data_offsets: 1e0 is no integer"});
  refuse(one("U8", "[1]", "[0,18446744073709551616]"), 1,
         {"w.data_offsets: 18446744073709551616 is no integer"});
  refuse(one("U8", "[1]", "[0,18446744073709551615]"), 1,
         {"w.data_offsets", "ends after the data of 1 bytes"});
  refuse(one("U8", "[1]", "[0,\"1\"]"), 1, {"w.data_offsets: a string"});
  refuse(one("U8", "[1]", "[0]"), 1, {"w.data_offsets: two offsets expected"});
  refuse(one("U8", "[1]", "[0,1,1]"), 1, {"w.data_offsets: more than two offsets"});
  refuse(one("U8", "[1]", "1"), 1, {"w.data_offsets: a number"});
  refuse(one("U8", "[1]", "[0,1e999]"), 1, {"byte", "1e999"});
}
TEST_F(SafetensorsHostile, Row17ShapeWrapsToASmallProduct) {
  refuse(one("U8", "[2,18446744073709551614]", "[0,1]"), 1, {"w.shape: dim 18446744073709551614 is larger"});
  refuse(one("U8", "[4294967296,4294967296,4294967296]", "[0,1]"), 1, {"w.data_offsets: shape", "overflows"});
}
TEST_F(SafetensorsHostile, Row18BitCountOverflows) {
  refuse(one("F64", "[288230376151711744]", "[0,8]"), 8,
         {"w.data_offsets: shape [288230376151711744] overflows"});
}
TEST_F(SafetensorsHostile, Row19CumulativeOverflow) {
  const std::string half = "[1152921504606846975]";
  refuse(two(entry("a", "U8", half, "[0,1152921504606846975]"),
             entry("b", "U8", half, "[1152921504606846975,2305843009213693950]")),
         1, {"a.data_offsets", "ends after the data"});
  refuse(two(entry("a", "U8", "[1]", "[0,1]"), entry("b", "U8", "[1]", "[18446744073709551615,0]")), 1,
         {"b.data_offsets", "ends before"});
}
TEST_F(SafetensorsHostile, Row20ZeroHidesAnOverflow) {
  refuse(one("U8", "[0,4611686018427387904]", "[0,0]"), 0,
         {"w.data_offsets: shape [0, 4611686018427387904] overflows"});
  refuse(one("U8", "[0,9223372036854775808]", "[0,0]"), 0,
         {"w.shape: dim 9223372036854775808 is larger than int64"});
}
TEST_F(SafetensorsHostile, Row21UnknownDtype) {
  for (const char* dtype : {"F128", "f32", "", "BF16 ", "F8_E5M2"}) {
    refuse(one(dtype, "[1]", "[0,1]"), 1, {fmt::format("w.dtype: dtype \"{}\" is not supported", dtype)});
  }
  refuse(R"({"w":{"dtype":7,"shape":[1],"data_offsets":[0,1]}})", 1, {"w.dtype: a number"});
}
TEST_F(SafetensorsHostile, Row22OddSubByteCount) {
  refuse(one("F4", "[3]", "[0,2]"), 2, {"w.dtype: dtype \"F4\" is not supported"});
  refuse(one("F6_E2M3", "[1]", "[0,1]"), 1, {"w.dtype"});
}
TEST_F(SafetensorsHostile, Row23Rank10000) {
  std::string shape = "[1";
  for (int i = 1; i < 10'000; ++i) shape += ",1";
  refuse(one("U8", shape + "]", "[0,1]"), 1, {"w.shape: more than 64 dims"});
}
TEST_F(SafetensorsHostile, Row24ControlCharactersInAName) {
  for (const char* name : {"a\\u0000b", "\\u001b[31mred", "a\\nb", "\\u007f", "\\u009b31m", ""}) {
    refuse("{" + entry(name, "U8", "[1]", "[0,1]") + "}", 1,
           {"tensor name is empty or holds control characters"});
  }
  using namespace std::literals;
  refuse("{"s + entry("a\0b"sv, "U8", "[1]", "[0,1]") + "}", 1, {"byte 11: not valid JSON: NUL byte"});
  refuse("{}\0 "sv, 0, {"byte 10: not valid JSON: NUL byte"});  // the lexer alone would stop at it
  refuse("{\"a\x1b[31m\":{}}", 0, {"byte"});
}
TEST_F(SafetensorsHostile, Row25MisalignedData) {
  refuse(two(entry("a", "U8", "[1]", "[0,1]"), entry("b", "F32", "[1]", "[1,5]")), 5,
         {"b.data_offsets: begins at 1, misaligned for F32"});
}
TEST_F(SafetensorsHostile, Row26FileShrinksWhileOpen) {
  const std::string header = one("U8", "[9000]", "[0,9000]");
  write(header.size(), header, std::string(9000, 'x'));
  const SafetensorsFile file(path());
  std::filesystem::resize_file(path(), 5000);
  std::vector<std::byte> out(9000);
  test::expect_input_error({"x.safetensors: byte 5000", "shrank"}, [&] { file.read(*file.find("w"), out); });
}
TEST_F(SafetensorsHostile, Row27FifoDirectoryDevice) {
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  refuse_file({"is a FIFO"});
  std::filesystem::remove(path());
  std::filesystem::create_directory(path());
  refuse_file({"is a directory"});
  test::expect_input_error({"/dev/zero: is a device"}, [] { SafetensorsFile file("/dev/zero"); });
  test::expect_input_error({"/none: no such file"}, [&] { SafetensorsFile file(dir_ / "none"); });
}
TEST_F(SafetensorsHostile, Row28GitLfsPointer) {
  test::write_file(path(), "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
  refuse_file({"is a Git LFS pointer", "git lfs pull"});
}

TEST_F(SafetensorsHostile, SizeThatDoesNotMatchShape) {
  refuse(one("F32", "[2]", "[0,4]"), 4, {"w.data_offsets: [0, 4] holds 4 bytes, F32 of shape [2] take 8"});
  refuse(one("F32", "[0]", "[0,4]"), 4, {"w.data_offsets"});
}
TEST_F(SafetensorsHostile, MissingAndUnknownKeys) {
  refuse(R"({"w":{"dtype":"U8","shape":[1]}})", 1, {"w: dtype, shape or data_offsets is missing"});
  refuse(R"({"w":{}})", 0, {"w: dtype, shape or data_offsets is missing"});
  refuse(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}})", 1,
         {"w.strides: unknown key"});
  refuse(R"({"w":null})", 0, {"w: null"});
}
TEST_F(SafetensorsHostile, CutOffData) {
  refuse(one("U8", "[8]", "[0,8]"), 7, {"w.data_offsets", "ends after the data of 7 bytes", "cut off"});
}

}  // namespace
}  // namespace dsv3
