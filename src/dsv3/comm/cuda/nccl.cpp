// NCCL for CUDA tensors. Compiled and linked, not yet run on a GPU.
#include <c10/cuda/CUDAFunctions.h>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "dsv3/base/error.h"
#include "dsv3/comm/backends.h"

namespace dsv3 {
namespace {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            int local_rank, std::chrono::milliseconds timeout) {
  if (local_rank >= c10::cuda::device_count())
    throw UsageError("train.device",
                     "local rank " + std::to_string(local_rank) + " has no GPU, there are " +
                         std::to_string(c10::cuda::device_count()),
                     "start as many ranks a host as it has GPUs");
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(local_rank));  // "cuda" without a number is this one
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}

[[maybe_unused]] const bool kRegistered = register_nccl(make_nccl);

}  // namespace
}  // namespace dsv3
