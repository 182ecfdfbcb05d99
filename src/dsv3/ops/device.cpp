#include "dsv3/ops/device.h"

#include <sys/resource.h>

#include <optional>
#include <string>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

// A function's static, because register_cuda runs before main, in no fixed order with this file's own
// statics.
std::optional<CudaHooks>& registered() {
  static std::optional<CudaHooks> hooks;
  return hooks;
}

const CudaHooks& cuda_hooks(at::Device device) {
  if (!registered())
    throw UsageError(device.str(), "this program was built without CUDA", "`make cuda` builds one with it");
  return *registered();
}

}  // namespace

bool register_cuda(const CudaHooks& hooks) {
  registered() = hooks;
  return true;
}

int64_t device_memory_bytes(at::Device device) {
  if (device.is_cuda()) return cuda_hooks(device).memory_bytes(device);
  if (!device.is_cpu()) return 0;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

void synchronize(at::Device device) {
  if (device.is_cuda()) cuda_hooks(device).synchronize(device);
}

int num_cuda_devices() { return registered() ? registered()->num_devices() : 0; }

}  // namespace dsv3
