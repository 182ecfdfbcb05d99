#include "dsv3/formats/dcp_metadata.h"

#include <gtest/gtest.h>

#include "dsv3/base/atomic_file.h"
#include "support/files.h"

namespace dsv3 {
namespace {

DcpMetadata example() {
  DcpMetadata out;
  out.tensors.push_back({"model.a",
                         DType::bf16,
                         {4, 6},
                         {{{0, 0}, {1, 4}, "__0_0.distcp", 0, 640},
                          {{0, 4}, {1, 2}, "__1_0.distcp", 0, 640},
                          {{1, 0}, {3, 6}, "__1_0.distcp", 640, 1ll << 40}},
                         {"model", "a"}});
  out.tensors.push_back({"none", DType::f8_e4m3, {0, 7}, {{{0, 0}, {0, 7}, "x", 0, 1}}, {"none"}});
  out.tensors.push_back({"optim.0.step", DType::f32, {}, {{{}, {}, "x", 9, 1}}, {"optim", 0, "step"}});
  out.objects.push_back({"lr.é", "__0_0.distcp", 640, 3, {"lr", "é"}});
  return out;
}

TEST(DcpMetadata, WriterAndReaderAgree) {
  test::TempDir dir;
  const DcpMetadata wrote = example();
  write_atomically(dir / ".metadata", write_dcp_metadata(wrote));
  const DcpMetadata read = read_dcp_metadata(dir / ".metadata");
  ASSERT_EQ(read.tensors.size(), wrote.tensors.size());
  for (size_t i = 0; i < read.tensors.size(); ++i) {
    const DcpTensor &a = read.tensors[i], &b = wrote.tensors[i];
    EXPECT_EQ(a.key, b.key);
    EXPECT_EQ(a.dtype, b.dtype);
    EXPECT_EQ(a.shape, b.shape);
    EXPECT_EQ(a.path, b.path);
    ASSERT_EQ(a.chunks.size(), b.chunks.size());
    for (size_t j = 0; j < a.chunks.size(); ++j) {
      EXPECT_EQ(a.chunks[j].offsets, b.chunks[j].offsets);
      EXPECT_EQ(a.chunks[j].sizes, b.chunks[j].sizes);
      EXPECT_EQ(a.chunks[j].file, b.chunks[j].file);
      EXPECT_EQ(a.chunks[j].offset, b.chunks[j].offset);
      EXPECT_EQ(a.chunks[j].length, b.chunks[j].length);
    }
  }
  ASSERT_EQ(read.objects.size(), 1u);
  EXPECT_EQ(read.objects[0].key, "lr.é");
  EXPECT_EQ(read.objects[0].file, "__0_0.distcp");
  EXPECT_EQ(read.objects[0].offset, 640u);
  EXPECT_EQ(read.objects[0].length, 3u);
  EXPECT_EQ(read.objects[0].path, (std::vector<PathPart>{"lr", "é"}));
}

TEST(DcpMetadata, WriterRefusesItsCallersMistakes) {
  DcpMetadata metadata = example();
  metadata.tensors[0].chunks.clear();
  EXPECT_THROW(write_dcp_metadata(metadata), std::logic_error);
  metadata = example();
  metadata.objects[0].path.clear();
  EXPECT_THROW(write_dcp_metadata(metadata), std::logic_error);
}

}  // namespace
}  // namespace dsv3
