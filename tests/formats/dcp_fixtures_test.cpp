// What PyTorch wrote (tools/golden/dcp_fixtures.py): element i of each tensor is i, of its dtype.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/torch_item.h"
#include "support/files.h"

namespace dsv3 {
namespace {

const std::filesystem::path kFixtures = DSV3_SOURCE_DIR "/tests/formats/dcp";

// The bytes of small number i.
std::string element(DType dtype, int64_t i) {
  static constexpr uint8_t kF8[] = {0x00, 0x38, 0x40, 0x44, 0x48, 0x4a};
  static constexpr uint16_t kF16[] = {0x0000, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500};
  std::string out(static_cast<size_t>(dtype_size(dtype)), '\0');
  const auto number = static_cast<float>(i);
  uint32_t wide;
  std::memcpy(&wide, &number, 4);
  switch (dtype) {
    case DType::f32:
      std::memcpy(out.data(), &number, 4);
      break;
    case DType::bf16:
      wide >>= 16;  // exact: i has few bits
      std::memcpy(out.data(), &wide, 2);
      break;
    case DType::f16:
      std::memcpy(out.data(), &kF16[i], 2);
      break;
    case DType::f8_e4m3:
      out[0] = static_cast<char>(kF8[i]);
      break;
    case DType::boolean:
      out[0] = static_cast<char>(i % 2);
      break;
    default:
      std::memcpy(out.data(), &i, out.size());
  }
  return out;
}

// A tensor of at most two dims, put together from its chunks.
std::string read_whole(const std::filesystem::path& folder, const DcpTensor& tensor) {
  const auto size = static_cast<size_t>(dtype_size(tensor.dtype));
  const auto dim = [](const std::vector<int64_t>& dims, size_t i) {  // of the last two
    return i + dims.size() < 2 ? 1 : static_cast<size_t>(dims[i + dims.size() - 2]);
  };
  const auto start = [](const std::vector<int64_t>& dims, size_t i) {
    return i + dims.size() < 2 ? 0 : static_cast<size_t>(dims[i + dims.size() - 2]);
  };
  const size_t columns = dim(tensor.shape, 1);
  std::string out(dim(tensor.shape, 0) * columns * size, '\xee');
  for (const DcpChunk& chunk : tensor.chunks) {
    const InputFile file(folder / chunk.file);
    const TorchTensor item = read_torch_tensor(file, chunk.offset, chunk.length, tensor.key);
    check_torch_tensor(file, item, tensor.key);
    EXPECT_EQ(item.dtype, tensor.dtype);
    EXPECT_EQ(item.shape, chunk.sizes);
    const size_t row = dim(chunk.sizes, 1) * size;
    for (size_t r = 0; r < dim(chunk.sizes, 0); ++r) {
      const size_t at = (start(chunk.offsets, 0) + r) * columns + start(chunk.offsets, 1);
      file.read(std::as_writable_bytes(std::span(out.data() + at * size, row)), item.begin + r * row);
    }
  }
  return out;
}

void expect_counting(const std::filesystem::path& folder, const DcpTensor& tensor, int64_t first = 0) {
  std::string expected;
  const std::string found = read_whole(folder, tensor);
  for (int64_t i = 0; expected.size() < found.size(); ++i) expected += element(tensor.dtype, first + i);
  EXPECT_EQ(found, expected) << tensor.key;
}

using Path = std::vector<PathPart>;

TEST(DcpFixtures, OneRank) {
  const auto folder = kFixtures / "one_rank";
  const DcpMetadata metadata = read_dcp_metadata(folder / ".metadata");
  std::map<std::string, int64_t> first{{"view", 4}, {"scalar", 7}};
  EXPECT_EQ(metadata.tensors.size(), 14u);
  for (const DcpTensor& tensor : metadata.tensors) expect_counting(folder, tensor, first[tensor.key]);
  EXPECT_EQ(metadata.tensors[0].key, "model.bfloat16");
  EXPECT_EQ(metadata.tensors[0].path, (Path{"model", "bfloat16"}));
  EXPECT_EQ(metadata.tensors[0].shape, (std::vector<int64_t>{2, 3}));

  std::map<std::string, PickleValue> objects;
  for (const DcpBytes& object : metadata.objects) {
    objects[object.key] =
        read_torch_object(InputFile(folder / object.file), object.offset, object.length, object.key);
    if (object.key == "optim.param_groups.0.lr") {
      EXPECT_EQ(object.path, (Path{"optim", "param_groups", 0, "lr"}));
    }
  }
  ASSERT_EQ(objects.size(), 5u);
  EXPECT_EQ(objects["note"].text(), "é");
  EXPECT_EQ(objects["raw"].text(), std::string("\0\xff", 2));
  EXPECT_EQ(objects["step"].integer(), 1ll << 40);
  EXPECT_EQ(objects["optim.param_groups.0.lr"].real(), 0.25);
  const PickleValue& betas = objects["optim.param_groups.0.betas"];
  ASSERT_TRUE(betas.is(PickleKind::tuple));
  EXPECT_EQ(betas.items()[1].real(), 0.95);
}

TEST(DcpFixtures, ShardsOfTwoRanksAndOfAGrid) {
  for (const char* name : {"two_ranks", "two_by_two"}) {
    const auto folder = kFixtures / name;
    const DcpMetadata metadata = read_dcp_metadata(folder / ".metadata");
    for (const DcpTensor& tensor : metadata.tensors) {
      expect_counting(folder, tensor);
      const size_t chunks = tensor.key == "all" ? 1 : tensor.key == "grid" ? 4 : 2;
      EXPECT_EQ(tensor.chunks.size(), chunks) << tensor.key;
    }
  }
}

TEST(DcpFixtures, BeforeTorch23) {
  const DcpMetadata old = read_dcp_metadata(kFixtures / "before_2.3" / ".metadata");
  const DcpMetadata now = read_dcp_metadata(kFixtures / "one_rank" / ".metadata");
  EXPECT_EQ(write_dcp_metadata(old), write_dcp_metadata(now));
}

}  // namespace
}  // namespace dsv3
