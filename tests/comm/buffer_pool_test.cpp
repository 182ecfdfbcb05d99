// Memory is used again, given back when other sizes are asked for, and safe to hold on to.
#include "dsv3/comm/buffer_pool.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>
#include <vector>

namespace dsv3 {
namespace {

constexpr int64_t kMega = 1 << 20;

int64_t resident_bytes() {
  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * 4096;
}

TEST(BufferPool, UsesMemoryAgainWhenItsLastTensorIsGone) {
  BufferPool pool;
  at::Tensor first = pool.empty(4 * kMega, at::kFloat);
  const void* memory = first.data_ptr();
  at::Tensor view = first.narrow(0, 8, 8);
  first = at::Tensor();
  EXPECT_NE(pool.empty(4 * kMega, at::kFloat).data_ptr(), memory);  // the view is alive
  view = at::Tensor();
  std::vector<const void*> found;
  const at::Tensor a = pool.empty(4 * kMega, at::kFloat), b = pool.empty(2 * kMega, at::kDouble);
  EXPECT_TRUE(a.data_ptr() == memory || b.data_ptr() == memory);  // bytes count, not dtypes
  EXPECT_NE(a.data_ptr(), b.data_ptr());
}

TEST(BufferPool, GivesIdleMemoryBackWhenAnotherSizeIsNeeded) {
  BufferPool pool;
  const int64_t before = resident_bytes();
  for (int64_t size = 32; size < 64; ++size) pool.empty(size * kMega, at::kFloat).fill_(1);
  EXPECT_LT(resident_bytes() - before, 2 * 64 * 4 * kMega);  // not the sum of 32 sizes, 6 GB
}

TEST(BufferPool, BuffersOutliveItAndMayEndOnAnotherThread) {
  at::Tensor kept;
  {
    BufferPool pool;
    kept = pool.empty(kMega, at::kFloat);
    std::thread([tensor = pool.empty(kMega, at::kFloat)]() mutable { tensor = at::Tensor(); }).join();
  }
  kept.fill_(3);
  EXPECT_EQ(kept[kMega - 1].item<float>(), 3);
}

TEST(BufferPool, SmallAndMetaTensorsAreATens) {
  BufferPool pool;
  EXPECT_EQ(pool.empty(0, at::kFloat).numel(), 0);
  EXPECT_TRUE(pool.empty(8 * kMega, at::TensorOptions(at::kMeta).dtype(at::kFloat)).is_meta());
}

}  // namespace
}  // namespace dsv3
