#include "dsv3/data/utf8_stream.h"

#include <gtest/gtest.h>

namespace dsv3 {
namespace {

// Byte by byte, as generation gives them.
std::string streamed(std::string_view bytes) {
  Utf8Stream stream;
  std::string out;
  for (const char byte : bytes) out += stream.add({&byte, 1});
  return out + stream.finish();
}

TEST(Utf8Stream, HoldsBackHalfACharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.add("a"), "a");
  EXPECT_EQ(stream.add("\xE2\x82"), "");
  EXPECT_EQ(stream.add("\xAC"), "\xE2\x82\xAC");
  EXPECT_EQ(streamed("h\xC3\xA9 \xF0\x9F\x98\x80!"), "h\xC3\xA9 \xF0\x9F\x98\x80!");
}

// Expected values: Python's bytes.decode("utf-8", "replace").
TEST(Utf8Stream, ReplacesWhatIsNoUtf8) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(streamed("\xC3"), r);  // cut off
  EXPECT_EQ(streamed("\xE2\x82"
                     "a"),
            r + "a");                                      // cut off by another character
  EXPECT_EQ(streamed("\xE2\xC3\xA9"), r + "\xC3\xA9");     // cut off by another lead byte
  EXPECT_EQ(streamed("\x80\xFF"), r + r);                  // no lead byte
  EXPECT_EQ(streamed("\xC0\x80"), r + r);                  // overlong
  EXPECT_EQ(streamed("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(streamed("\xF4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
}

}  // namespace
}  // namespace dsv3
