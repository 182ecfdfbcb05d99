#include "dsv3/ops/device.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

namespace dsv3 {
namespace {

using c10::CachingAllocator::StatType;

int64_t memory_bytes(at::Device device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return stats.reserved_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
}

void synchronize_device(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::device_synchronize();
}

// Unlike device_count_ensure_non_zero, 0 without a driver, and no error.
int num_devices() { return c10::cuda::device_count(); }

[[maybe_unused]] const bool kRegistered = register_cuda(
    {.memory_bytes = memory_bytes, .synchronize = synchronize_device, .num_devices = num_devices});

}  // namespace
}  // namespace dsv3
