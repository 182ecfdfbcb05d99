#pragma once
// What the engine asks of a device beyond ATen's public operators. The CPU's answers are here; CUDA's are
// registered by ops/cuda/device.cpp when that file is linked, so every other object is the same with and
// without CUDA.

#include <c10/core/Device.h>

#include <cstdint>

namespace dsv3 {

// Peak bytes since the process began. CPU: resident set, libtorch's code and file pages included. CUDA: what
// the caching allocator has reserved on that device. Meta: 0.
int64_t device_memory_bytes(at::Device device);

// Waits until all work queued on the device is done. Nothing to do on the CPU.
void synchronize(at::Device device);

// 0 when the CUDA files are not linked, no driver is there or it shows no GPU.
int num_cuda_devices();

// The three functions above for CUDA devices.
struct CudaHooks {
  int64_t (*memory_bytes)(at::Device);
  void (*synchronize)(at::Device);
  int (*num_devices)();
};
// Called once, before main. See ops/cuda/device.cpp.
bool register_cuda(const CudaHooks& hooks);

}  // namespace dsv3
