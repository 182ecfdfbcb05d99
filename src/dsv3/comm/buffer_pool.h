#pragma once
// Memory of the flat buffers that a step takes and gives back, block after block.
//
// malloc is no place for them. In its heap they leave holes that small, longer-lived tensors keep from
// shrinking: four ranks of bench-108m grew to 1.5 GB each where 0.9 are in use. Straight from the system each
// time, their pages are made and zeroed anew: the same step took twice as long.

#include <ATen/core/Tensor.h>

#include <memory>

namespace dsv3 {

class BufferPool {
 public:
  BufferPool();

  // [numel], not initialised. Memory of an idle buffer of as many bytes, else new memory. Idle memory goes
  // back to the system when new memory is needed, or after a few buffers of other sizes: it is of another
  // part of the model. A buffer is idle when the last tensor on it is gone, on any thread; it may outlive the
  // pool. Less than 1 MB, and on a GPU: ATen's own. RunError when there is no memory.
  at::Tensor empty(int64_t numel, const at::TensorOptions& options);

 private:
  struct Idle;
  std::shared_ptr<Idle> idle_;
};

}  // namespace dsv3
