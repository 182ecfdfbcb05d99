#include "dsv3/formats/hf_index.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/files.h"

namespace dsv3 {
namespace {

class HfIndexTest : public testing::Test {
 protected:
  HfIndex read(std::string_view text) { return read_hf_index(test::write_file(dir_ / "index.json", text)); }
  void refuse(std::string_view text, std::initializer_list<std::string_view> parts) {
    test::write_file(dir_ / "index.json", text);
    test::expect_input_error({"/index.json: "}, [&] { read_hf_index(dir_ / "index.json"); });
    test::expect_input_error(parts, [&] { read_hf_index(dir_ / "index.json"); });
  }
  static std::string map(std::string_view tensor, std::string_view shard) {
    return fmt::format(R"({{"weight_map":{{"{}":"{}"}}}})", tensor, shard);
  }
  test::TempDir dir_;
};

TEST_F(HfIndexTest, ReadsShardsAndSkipsOtherKeys) {
  const HfIndex index = read(R"({"metadata":{"total_size":12,"total_parameters":3,"x":[{"total_size":"a"}]},
                                 "other":{"weight_map":[1,null,{"a":true}]},
                                 "weight_map":{"c":"2.st","a":"1.st","b":"2.st"}})");
  EXPECT_EQ(index.shards, (std::vector<std::string>{"2.st", "1.st"}));
  ASSERT_EQ(index.entries.size(), 3u);
  EXPECT_EQ(index.entries[1].tensor, "b");
  EXPECT_EQ(index.entries[1].shard, 0u);
  EXPECT_EQ(index.entries[0].shard, 1u);
  EXPECT_EQ(index.total_size, 12u);
  EXPECT_EQ(read(R"({"weight_map":{}})").total_size, std::nullopt);
  EXPECT_EQ(read(R"({"metadata":{"total_size":16060522496.0},"weight_map":{}})").total_size, 16060522496u);
}

TEST_F(HfIndexTest, Row29ParentFolder) {
  refuse(map("w", "../x.safetensors"), {"weight_map.w: shard \"../x.safetensors\" is no plain file name"});
  refuse(map("w", "a/../../x"), {"weight_map.w"});
  refuse(map("w", ".."), {"weight_map.w"});
}
TEST_F(HfIndexTest, Row30AbsolutePath) {
  refuse(map("w", "/etc/passwd"), {"weight_map.w: shard \"/etc/passwd\""});
}
TEST_F(HfIndexTest, Row32OneKeyInTwoShards) {
  refuse(R"({"weight_map":{"w":"1.st","v":"1.st","w":"2.st"}})",
         {"weight_map.w: is in two shards, ", "1.st", "2.st"});
  refuse(R"({"weight_map":{"w":"1.st","v":"1.st","w":"1.st"}})", {"weight_map.w: duplicate key"});
  refuse(R"({"weight_map":{},"weight_map":{}})", {"weight_map: duplicate key"});
}
TEST_F(HfIndexTest, Row35TotalSize) {
  const auto total = [](std::string_view value) {
    return fmt::format(R"({{"metadata":{{"total_size":{}}},"weight_map":{{}}}})", value);
  };
  refuse(total("-5"), {"metadata.total_size: -5 is negative"});
  for (const char* value : {"-5.0", "0.5", "1e300", "18446744073709551616"}) {
    refuse(total(value), {"metadata.total_size: ", "is no number of bytes"});
  }
  for (const char* value : {"\"5\"", "null", "true", "[]", "{}"})
    refuse(total(value), {"metadata.total_size: "});
  refuse(R"({"metadata":{"total_size":1,"total_size":1},"weight_map":{}})",
         {"metadata.total_size: duplicate key"});
}
TEST_F(HfIndexTest, Row36MillionShardNames) {
  std::string text = "{\"weight_map\":{";
  for (int i = 0; i < 1'000'000; ++i) text += fmt::format("{}\"t{}\":\"s{}.st\"", i ? "," : "", i, i);
  refuse(text + "}}", {"weight_map.t10000: more than 10000 shards"});
}
TEST_F(HfIndexTest, Row37EmptyNulOrDotName) {
  for (const char* shard : {"", ".", "a\\u0000.st", "\\u001b[31m", "a\\\\n/b"}) {
    refuse(map("w", shard), {"weight_map.w: shard \"", "is no plain file name"});
  }
  for (const char* tensor : {"", "a\\u0000b", "\\u001b[31m"})
    refuse(map(tensor, "1.st"), {"tensor name is empty or"});
}
TEST_F(HfIndexTest, OtherWaysToBeWrong) {
  refuse("", {"byte 1: not valid JSON"});
  refuse("{\"weight_map\":{}", {"byte"});
  refuse(std::string_view("{\"weight_map\":{}}\0", 18), {"byte 17: not valid JSON: NUL byte"});
  for (const char* text : {"[]", "7", "null", "\"a\""}) refuse(text, {"is no JSON object"});
  refuse("{}", {"weight_map: is missing"});
  for (const char* value : {"[]", "7", "\"a\""}) {
    refuse(fmt::format(R"({{"weight_map":{}}})", value), {"weight_map: "});
  }
  for (const char* value : {"[]", "{}", "7", "null"}) {
    refuse(fmt::format(R"({{"weight_map":{{"w":{}}}}})", value), {"weight_map.w"});
  }
  refuse("{\"metadata\":" + std::string(100'000, '['), {"metadata: nested deeper than 64"});
  std::filesystem::resize_file(dir_ / "index.json", 1ull << 40);  // sparse
  test::expect_input_error({"at most"}, [&] { read_hf_index(dir_ / "index.json"); });
}

}  // namespace
}  // namespace dsv3
