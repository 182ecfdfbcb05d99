#include "dsv3/formats/torch_item.h"

#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>

#include "dsv3/formats/zip.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using Shape = std::vector<int64_t>;

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string data_of(DType dtype, const Shape& shape) {
  int64_t size = dtype_size(dtype);
  for (const int64_t dim : shape) size *= dim;
  std::string out;
  for (int64_t i = 0; i < size; ++i) out += static_cast<char>(dtype == DType::boolean ? i % 2 : 3 * i + 1);
  return out;
}

TEST(TorchItem, EveryDTypeAndShapeSurvives) {
  test::TempDir dir;
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    const auto dtype = static_cast<DType>(i);
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{0}, Shape{2, 0, 3}, Shape{2, 1, 70000}}) {
      const std::string data = data_of(dtype, shape);
      const TorchItem item = make_torch_tensor(dtype, shape, bytes(data));
      EXPECT_EQ(item.head.size() % 64, 0u);
      EXPECT_EQ(item.head.size() + item.tail.size(), torch_tensor_bytes(dtype, shape));
      // Anywhere in a larger file.
      const std::string archive = item.head + data + item.tail;
      test::write_file(dir / "a", "before" + archive + "after");
      const InputFile file(dir / "a");
      const TorchTensor tensor = read_torch_tensor(file, 6, archive.size(), "w");
      EXPECT_EQ(tensor.dtype, dtype);
      EXPECT_EQ(tensor.shape, shape);
      EXPECT_EQ(tensor.begin, 6 + item.head.size());
      EXPECT_EQ(tensor.size, data.size());
      std::string read(tensor.size, '\0');
      file.read(std::as_writable_bytes(std::span(read)), tensor.begin);
      EXPECT_EQ(read, data);
      check_torch_tensor(file, tensor, "w");
    }
  }
}

// Its sizes stand in ZIP64 fields. The file is sparse: the data is neither written nor read.
TEST(TorchItem, MoreThan4GiBSurvive) {
  test::TempDir dir;
  const Shape shape{5, 1ll << 30};
  const uint64_t size = 5ull << 30;
  const TorchItem item = make_torch_tensor(DType::u8, shape, 0x12345678u);
  test::write_file(dir / "a", item.head);
  std::filesystem::resize_file(dir / "a", item.head.size() + size);
  std::ofstream(dir / "a", std::ios::binary | std::ios::app) << item.tail;
  const InputFile file(dir / "a");
  EXPECT_EQ(file.size(), size + torch_tensor_bytes(DType::u8, shape));
  const TorchTensor tensor = read_torch_tensor(file, 0, file.size(), "w");
  EXPECT_EQ(tensor.shape, shape);
  EXPECT_EQ(tensor.begin, item.head.size());
  EXPECT_EQ(tensor.size, size);
  EXPECT_EQ(tensor.crc, 0x12345678u);
}

TEST(TorchItem, ObjectsSurvive) {
  test::TempDir dir;
  using V = PickleValue;
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const V value =
      V::of_dict({{V::of_text("é"), V::of_list({V(), V::of_bool(true), V::of_int(-5), V::of_int(1ll << 40)})},
                  {V::of_int(7), V::of_tuple({V::of_real(0.1), V::of_text("é"), V::of_bytes(all)})},
                  {V::of_tuple({}), V::of_dict({})}});
  const std::string archive = make_torch_object(value);
  test::write_file(dir / "a", archive);
  const V read = read_torch_object(InputFile(dir / "a"), 0, archive.size(), "state");
  EXPECT_EQ(make_torch_object(read), archive);
  ASSERT_EQ(read.items().size(), 6u);
  EXPECT_EQ(read.items()[1].items()[3].integer(), 1ll << 40);
  EXPECT_EQ(read.items()[3].items()[0].real(), 0.1);
  EXPECT_EQ(read.items()[3].items()[2].text(), all);
}

TEST(TorchItem, WriterRefusesItsCallersMistakes) {
  EXPECT_THROW(make_torch_tensor(DType::f32, Shape{2}, bytes("1234567")), std::logic_error);
  EXPECT_THROW(torch_tensor_bytes(DType::f32, Shape{-1}), std::logic_error);
  EXPECT_THROW(torch_tensor_bytes(DType::f32, Shape{1ll << 62}), std::logic_error);
}

}  // namespace
}  // namespace dsv3
