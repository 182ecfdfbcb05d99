#include "dsv3/data/tokenizer.h"

#include <gtest/gtest.h>

namespace dsv3 {
namespace {

TEST(ByteTokenizer, EveryByteIsItsIdAndComesBack) {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  const auto ids = ByteTokenizer::encode(text);
  ASSERT_EQ(ids.size(), 256u);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[byte], byte);
  EXPECT_EQ(ByteTokenizer::decode(ids), text);
}

TEST(ByteTokenizer, SpecialsAndForeignIdsAreLeftOut) {
  EXPECT_EQ(ByteTokenizer::decode(std::vector<int32_t>{256, 'a', 257, 'b', 258, -1, 70000}), "ab");
  EXPECT_TRUE(ByteTokenizer::encode("").empty());
}

TEST(ByteTokenizer, HashIsWrittenIntoFilesAndStays) {
  EXPECT_EQ(ByteTokenizer::hash(), "fnv1a64:bde55127296734f1");
}

}  // namespace
}  // namespace dsv3
