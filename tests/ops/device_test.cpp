#include "dsv3/ops/device.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

TEST(Device, CpuMemoryIsThePeakAndSeesAnAllocation) {
  const int64_t before = device_memory_bytes(at::kCPU);
  EXPECT_GT(before, 0);
  { const std::vector<char> block(size_t{256} << 20, 1); }
  EXPECT_GE(device_memory_bytes(at::kCPU), int64_t{256} << 20);
  EXPECT_GE(device_memory_bytes(at::kCPU), before);
  EXPECT_EQ(device_memory_bytes(at::kMeta), 0);
}

TEST(Device, CudaWithoutTheCudaFilesIsRefusedByName) {
  EXPECT_EQ(num_cuda_devices(), 0);
  const at::Device cuda("cuda:1");
  try {
    synchronize(cuda);
    FAIL() << "synchronize(cuda:1) did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("cuda:1"), std::string::npos) << error.what();
  }
  EXPECT_THROW(device_memory_bytes(cuda), Error);
}

// A build with CUDA differs from this one by a call of register_cuda alone. In a child, so that no other test
// sees GPUs.
TEST(Device, RegisteredHooksAnswerForCuda) {
  const auto registered = [] {
    static int waited = 0;
    register_cuda({.memory_bytes = [](at::Device d) { return int64_t{d.index()} + 40; },
                   .synchronize = [](at::Device) { ++waited; },
                   .num_devices = [] { return 3; }});
    synchronize(at::Device("cuda:0"));
    synchronize(at::kCPU);
    std::_Exit(num_cuda_devices() == 3 && device_memory_bytes(at::Device("cuda:2")) == 42 && waited == 1 ? 0
                                                                                                         : 1);
  };
  EXPECT_EXIT(registered(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace dsv3
