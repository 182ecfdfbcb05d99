#include "dsv3/formats/npy.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>

#include "support/files.h"

namespace dsv3 {
namespace {

using Values = std::vector<int64_t>;

class Npy : public testing::Test {
 protected:
  void write(std::string_view header, std::string_view data, int version = 1) {
    std::string file = "\x93NUMPY";
    file += static_cast<char>(version);
    file += '\0';
    const auto length = static_cast<uint32_t>(header.size());
    file.append(reinterpret_cast<const char*>(&length), version == 1 ? 2 : 4);
    test::write_file(dir_ / "a.npy", file.append(header).append(data));
  }
  void write_array(std::string_view descr, std::string_view shape, std::string_view data,
                   std::string_view fortran = "False", int version = 1) {
    write(fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}   \n", descr, fortran, shape),
          data, version);
  }
  NpyArray read() { return read_npy_int(dir_ / "a.npy"); }
  void refuse(std::initializer_list<std::string_view> parts) {
    test::expect_input_error({"/a.npy: "}, [&] { read(); });
    test::expect_input_error(parts, [&] { read(); });
  }
  test::TempDir dir_;
};

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

TEST_F(Npy, ReadsEveryIntegerKind) {
  write_array("<i8", "(2, 1)", bytes_of<int64_t>({-100, 1ll << 40}));
  EXPECT_EQ(read().shape, (Values{2, 1}));
  EXPECT_EQ(read().values, (Values{-100, 1ll << 40}));
  write_array("<i4", "(2,)", bytes_of<int32_t>({-100, 7}), "False", 2);
  EXPECT_EQ(read().values, (Values{-100, 7}));
  write_array("<u2", "(2,)", bytes_of<uint16_t>({65535, 7}), "False", 3);
  EXPECT_EQ(read().values, (Values{65535, 7}));
  write_array("|u1", "(1, 2)", bytes_of<uint8_t>({255, 0}));
  EXPECT_EQ(read().values, (Values{255, 0}));
  write_array("|b1", "(3,)", bytes_of<uint8_t>({1, 0, 2}));
  EXPECT_EQ(read().values, (Values{1, 0, 1}));
  write_array("<i8", "()", bytes_of<int64_t>({5}));
  EXPECT_EQ(read().shape, Values{});
  EXPECT_EQ(read().values, Values{5});
  write_array("<i8", "(0, 3)", "");
  EXPECT_EQ(read().values, Values{});
  write_array("|u1", "(1, 2)", "ab", "True");  // one row: either order is the same
  EXPECT_EQ(read().values, (Values{'a', 'b'}));
}

TEST_F(Npy, WritesWhatItReads) {
  for (const Values& shape : {Values{2, 3}, Values{6}, Values{1, 6, 1}}) {
    const Values values{1, -2, 3, 4, 5, 1ll << 62};
    write_npy_int64(dir_ / "a.npy", shape, values);
    EXPECT_EQ(read().shape, shape);
    EXPECT_EQ(read().values, values);
    EXPECT_EQ(std::filesystem::file_size(dir_ / "a.npy") % 64, 48u);
  }
  write_npy_int64(dir_ / "a.npy", Values{}, Values{9});
  EXPECT_EQ(read().values, Values{9});
  EXPECT_THROW(write_npy_int64(dir_ / "a.npy", Values{2}, Values{9}), std::logic_error);
}

TEST_F(Npy, RefusesOtherFilesAndVersions) {
  for (const char* text : {"", "\x93NUMPY", "PK\3\4 this is an .npz file"}) {
    test::write_file(dir_ / "a.npy", text);
    refuse({"byte 0: is no .npy file"});
  }
  write("{}  ", "", 4);
  refuse({"byte 6: version 4"});
  write("{}  ", "", 0);
  refuse({"byte 6: version 0"});
}

TEST_F(Npy, RefusesHeadersThatLie) {
  std::string file = std::string("\x93NUMPY\x02\x00", 8) + "\xff\xff\xff\xff{}";
  test::write_file(dir_ / "a.npy", file);
  refuse({"byte 8: header length 4294967295"});
  write_array("<i8", "(1000000000000,)", "12345678");
  refuse({"shape: (1000000000000) of '<i8' does not match the 8 bytes of data"});
  write_array("<i8", "(4294967296, 4294967296)", "");
  refuse({"shape: "});
  write_array("<i8", "(0, 4611686018427387904, 4)", "");
  refuse({"shape: "});
  write_array("<i8", "(2,)", std::string(15, 'x'));
  refuse({"shape: "});
  write_array("<i8", "(2,)", std::string(17, 'x'));
  refuse({"shape: "});
  for (const char* shape : {"(-1,)", "(99999999999999999999,)", "('a',)", "(1, -1)"}) {
    write_array("<i8", shape, std::string(8, 'x'));
    refuse({"shape: holds a dim that is no size"});
  }
  std::string deep = "(1";
  for (int i = 0; i < 10'000; ++i) deep += ",1";
  write_array("<i8", deep + ")", std::string(8, 'x'));
  refuse({"shape: more than 64 dims"});
}

TEST_F(Npy, RefusesOtherKinds) {
  for (const char* descr : {"<f4", "<f8", ">i8", "|O", "<U3", "<i2", "", "<M8[s]"}) {
    write_array(descr, "(1,)", std::string(8, 'x'));
    refuse({fmt::format("descr: dtype '{}', expected bool", descr)});
  }
  write("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,), }\n", std::string(8, 'x'));
  refuse({"header byte 10: expected a quoted string"});
  write_array("|u1", "(2, 2)", "abcd", "True");
  refuse({"fortran_order: True"});
}

TEST_F(Npy, RefusesHeadersThatAreNoLiteral) {
  for (const char* header :
       {"", "{", "{'descr'", "{'descr':", "{'descr': '<i8", "{'descr': '<i8'}", "[]", "{}", "{'shape': (1,",
        "{'descr': '<i8', 'fortran_order': 0, 'shape': (1,)}", "{'descr': '<i8' 'shape': (1,)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<i8', 'fortran_order': False, 'shape': 1}",
        "{'descr': '<i8', 'descr': '<i8', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1.0,)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), 'x': 1}"}) {
    write(header, "12345678");
    refuse({"a.npy: "});
  }
}

TEST_F(Npy, EveryCutIsRefused) {
  write_npy_int64(dir_ / "a.npy", Values{2, 2}, Values{1, 2, 3, 4});
  for (uint64_t size = std::filesystem::file_size(dir_ / "a.npy"); size-- > 0;) {
    std::filesystem::resize_file(dir_ / "a.npy", size);
    EXPECT_THROW(read(), InputError) << size;
  }
}

}  // namespace
}  // namespace dsv3
