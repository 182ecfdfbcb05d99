#include "dsv3/comm/buffer_pool.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <list>
#include <mutex>
#include <string>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr size_t kSmall = size_t{1} << 20;  // bytes below which malloc's heap is not hurt
constexpr uint64_t kKept = 4;               // buffers taken before one that lies idle is given back

}  // namespace

// Least recently used first.
struct BufferPool::Idle {
  struct Block {
    size_t bytes;
    void* memory;
    uint64_t since;  // taken when it became idle
  };
  std::mutex mutex;
  std::list<Block> blocks;
  uint64_t taken = 0;

  // nullptr when there is none of that size.
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex);
    ++taken;
    const auto found =
        std::find_if(blocks.rbegin(), blocks.rend(), [&](const Block& b) { return b.bytes == bytes; });
    void* memory = nullptr;
    if (found != blocks.rend()) {
      memory = found->memory;
      blocks.erase(std::next(found).base());
    }
    while (!blocks.empty() && (!memory || taken - blocks.front().since > kKept)) give_back_oldest();
    return memory;
  }
  void put(size_t bytes, void* memory) {
    const std::lock_guard lock(mutex);
    blocks.push_back({bytes, memory, taken});
  }
  void give_back_oldest() {
    ::munmap(blocks.front().memory, blocks.front().bytes);
    blocks.pop_front();
  }
  ~Idle() {
    while (!blocks.empty()) give_back_oldest();
  }
};

BufferPool::BufferPool() : idle_(std::make_shared<Idle>()) {}

at::Tensor BufferPool::empty(int64_t numel, const at::TensorOptions& options) {
  const size_t bytes = static_cast<size_t>(numel) * options.dtype().itemsize();
  if (options.device().type() != at::kCPU || bytes < kSmall) return at::empty({numel}, options);
  void* memory = idle_->take(bytes);
  if (!memory) {
    memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
      throw RunError("memory", "there are no " + std::to_string(bytes) + " bytes for a unit's parameters",
                     "more ranks (parallel.shard, parallel.ep), or fewer of them on this host");
  }
  return at::from_blob(
      memory, {numel}, [idle = idle_, bytes](void* block) { idle->put(bytes, block); }, options);
}

}  // namespace dsv3
