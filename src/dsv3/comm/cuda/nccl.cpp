// NCCL for CUDA tensors. Compiled and linked, not yet run on a GPU.
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "dsv3/comm/backends.h"

namespace dsv3 {
namespace {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}

[[maybe_unused]] const bool kRegistered = register_nccl(make_nccl);

}  // namespace
}  // namespace dsv3
