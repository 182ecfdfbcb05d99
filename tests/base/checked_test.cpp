#include "dsv3/base/checked.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

TEST(Checked, OverflowIsAValue) {
  const int64_t max = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(checked_add(max, int64_t{0}), max);
  EXPECT_FALSE(checked_add(max, int64_t{1}));
  EXPECT_EQ(checked_mul(uint64_t{1} << 32, uint64_t{1} << 31), uint64_t{1} << 63);
  EXPECT_FALSE(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32));
}

TEST(Checked, Numel) {
  const auto numel = [](std::vector<int64_t> dims) { return checked_numel(dims); };
  EXPECT_EQ(numel({}), 1);
  EXPECT_EQ(numel({3, 4, 5}), 60);
  EXPECT_EQ(numel({3, 0}), 0);
  EXPECT_FALSE(numel({-1}));
  EXPECT_FALSE(numel({int64_t{1} << 32, int64_t{1} << 32}));
  EXPECT_FALSE(numel({0, int64_t{1} << 62, 4}));  // a zero does not hide it
}

TEST(Error, OneSafeLine) {
  const InputError error("a\nb.json", "key\x1b[31m", "is -1, expected 2", "set it to 2");
  EXPECT_STREQ(error.what(), "a\\x0ab.json: key\\x1b[31m: is -1, expected 2 (set it to 2)");
  EXPECT_EQ(error.code(), ExitCode::content);
  EXPECT_EQ(printable(std::string(300, 'x')), std::string(200, 'x') + "...");
  // U+0080 to U+009F are controls, U+009B begins what \x1b[ does; so does a byte by itself, to some
  // terminals.
  EXPECT_EQ(printable("\xc2\x80\xc2\x9b"
                      "m\x9b"
                      "m"),
            "\\xc2\\x80\\xc2\\x9bm\\x9bm");
  EXPECT_EQ(printable("\u00a0é\u4e1b\U0001f69b"), "\u00a0é\u4e1b\U0001f69b");  // bytes 0x80 to 0x9f inside
  EXPECT_EQ(printable("é\x9b\xe4\xb8"
                      "a\x9b"),
            "é\\x9b\xe4\xb8"
            "a\\x9b");
}

}  // namespace
}  // namespace dsv3
