#include "dsv3/formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/files.h"

namespace dsv3 {
namespace {

using test::TempDir;

std::string contents(const SafetensorsFile& file, std::string_view name) {
  const TensorInfo* tensor = file.find(name);
  std::string out(tensor->end - tensor->begin, '\0');
  file.read(*tensor, std::as_writable_bytes(std::span(out.data(), out.size())));
  return out;
}

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Safetensors, WriterAndReaderAgree) {
  TempDir dir;
  SafetensorsWriter writer(
      dir / "a", {{"f", DType::f32, {2}}, {"é\"\\", DType::bf16, {1, 3}}, {"none", DType::u8, {0, 5}}},
      {{"format", "pt"}, {"note", "a\nb"}});
  writer.write(bytes("0123456"));
  writer.write(bytes("7abcdef"));
  EXPECT_FALSE(std::filesystem::exists(dir / "a"));
  writer.finish();

  const SafetensorsFile file(dir / "a");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "a\nb"}}));
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(contents(file, "f"), "01234567");
  EXPECT_EQ(contents(file, "é\"\\"), "abcdef");
  EXPECT_EQ(contents(file, "none"), "");
  EXPECT_EQ(file.find("é\"\\")->dtype, DType::bf16);
  EXPECT_EQ(file.find("é\"\\")->shape, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(file.find("é\"\\")->numel(), 3);
  EXPECT_EQ(file.find("g"), nullptr);
  char piece[2];
  file.read(*file.find("f"), std::as_writable_bytes(std::span(piece)), 5);
  EXPECT_EQ(std::string_view(piece, 2), "56");
  EXPECT_THROW(file.read(*file.find("f"), std::as_writable_bytes(std::span(piece)), 7), std::logic_error);
}

TEST(Safetensors, EveryDTypeSurvives) {
  TempDir dir;
  std::vector<SafetensorsWriter::Entry> entries;
  std::string data;
  for (int64_t size : {8, 4, 2, 1}) {
    for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
      const auto dtype = static_cast<DType>(i);
      if (dtype_size(dtype) != size) continue;
      entries.push_back({dtype_name(dtype), dtype, {3}});
      data += std::string(static_cast<size_t>(3 * size), static_cast<char>(i));
    }
  }
  SafetensorsWriter writer(dir / "a", entries);
  writer.write(bytes(data));
  writer.finish();
  const SafetensorsFile file(dir / "a");
  EXPECT_EQ(file.tensors().size(), 14u);
  for (const TensorInfo& tensor : file.tensors()) {
    EXPECT_EQ(dtype_name(tensor.dtype), tensor.name);
    EXPECT_EQ(contents(file, tensor.name)[0], static_cast<char>(tensor.dtype));
  }
}

TEST(Safetensors, WriterRefusesItsCallersMistakes) {
  TempDir dir;
  using Entries = std::vector<SafetensorsWriter::Entry>;
  EXPECT_THROW(SafetensorsWriter(dir / "a", Entries{{"a", DType::u8, {1}}, {"b", DType::f32, {1}}}),
               std::logic_error);
  EXPECT_THROW(SafetensorsWriter(dir / "a", Entries{{"a", DType::u8, {-1}}}), std::logic_error);
  SafetensorsWriter writer(dir / "a", {{"a", DType::u8, {2}}});
  writer.write(bytes("x"));
  EXPECT_THROW(writer.finish(), std::logic_error);
  EXPECT_THROW(writer.write(bytes("yz")), std::logic_error);
  EXPECT_FALSE(std::filesystem::exists(dir / "a"));
}

TEST(Safetensors, SkippedBytesAreFilledLater) {
  TempDir dir;
  SafetensorsWriter writer(dir / "a", {{"late", DType::u8, {100'000}}, {"b", DType::u8, {2}}});
  writer.skip(100'000);
  writer.write(bytes("xy"));
  writer.fill(50'000, bytes(std::string(50'000, '2')));
  EXPECT_THROW(writer.finish(), std::logic_error);
  EXPECT_THROW(writer.fill(100'001, bytes("zz")), std::logic_error);
  writer.fill(0, bytes(std::string(50'000, '1')));
  EXPECT_THROW(writer.fill(0, bytes("1")), std::logic_error);
  writer.finish();
  const SafetensorsFile file(dir / "a");
  EXPECT_TRUE(contents(file, "late") == std::string(50'000, '1') + std::string(50'000, '2'));
  EXPECT_EQ(contents(file, "b"), "xy");
}

// Files of other writers: tensors in any order in the header, no padding, no metadata, nothing at all.
TEST(Safetensors, OtherWritersLayoutsAreRead) {
  TempDir dir;
  const auto write = [&](const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    return test::write_file(dir / "a", file + header + data);
  };
  const SafetensorsFile file(write(R"({"b":{"data_offsets":[4,6],"dtype":"F16","shape":[]},
                                       "a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]} } )",
                                   "0123ab"));
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(contents(file, "b"), "ab");
  EXPECT_EQ(SafetensorsFile(write("{}", "")).tensors().size(), 0u);
}

TEST(Safetensors, MillionTensorsAreReadFast) {
  TempDir dir;
  constexpr int kCount = 1'000'000;
  std::string header = "{";
  header.reserve(100 * kCount);
  for (int i = 0; i < kCount; ++i) {
    const std::string n = std::to_string(i), m = std::to_string(i + 1);
    header += (i ? ",\"model." : "\"model.") + n + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + n +
              "," + m + "]}";
  }
  header += '}';
  const uint64_t length = header.size();
  std::string start(8, '\0');
  std::memcpy(start.data(), &length, 8);
  test::write_file(dir / "a", start + header + std::string(kCount, 'x'));
  const double begin = test::cpu_seconds();
  const SafetensorsFile file(dir / "a");
  const double took = test::cpu_seconds() - begin;
  EXPECT_EQ(file.find("model.777777")->begin, 777777u);
  if (!test::has_sanitizers()) {
    EXPECT_LT(took, 3.0);
  }
}

}  // namespace
}  // namespace dsv3
