#include "dsv3/parallel/flat_unit.h"

#include <algorithm>

#include "dsv3/ops/options.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

constexpr int64_t kAlignment = 32;  // elements: 64 bytes of bf16, 128 of fp32

int64_t aligned(int64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

FlatUnit::FlatUnit(const std::vector<const ParamSpec*>& specs, const FlatUnitOptions& options)
    : compute_dtype_(options.compute_dtype) {
  for (const ParamSpec* spec : specs)
    slots_.push_back({spec, 0, !(options.frozen && options.frozen(spec->name)), {}});
  // Decaying, then not decaying, then frozen: each treatment is one range.
  std::stable_sort(slots_.begin(), slots_.end(), [](const Slot& a, const Slot& b) {
    auto order = [](const Slot& s) { return !s.trainable ? 2 : s.spec->decay ? 0 : 1; };
    return order(a) < order(b);
  });
  int64_t size = 0, trainable = 0;
  for (Slot& slot : slots_) {
    slot.offset = size;
    size = aligned(size + slot.spec->numel());
    if (!slot.trainable) continue;
    trainable = size;
    if (ranges_.empty() || ranges_.back().decay != slot.spec->decay)
      ranges_.push_back({slot.offset, size, slot.spec->decay});
    ranges_.back().end = size;
  }
  const auto tensors = at::TensorOptions().device(options.device).dtype(at_least_fp32(compute_dtype_));
  master_ = at::zeros({size}, tensors);
  grad_ = at::zeros({trainable}, tensors);
  for (Slot& slot : slots_)
    if (slot.trainable)
      slot.param.grad = grad_.narrow(0, slot.offset, slot.spec->numel()).view(slot.spec->shape);
  if (shares_master()) point_into(master_);
}

at::Tensor FlatUnit::master_of(const Slot& slot) const {
  return master_.narrow(0, slot.offset, slot.spec->numel()).view(slot.spec->shape);
}

void FlatUnit::point_into(const at::Tensor& buffer) {
  for (Slot& slot : slots_)
    slot.param.data = buffer.narrow(0, slot.offset, slot.spec->numel()).view(slot.spec->shape);
}

void FlatUnit::unshard() {
  if (uses_++ > 0 || shares_master()) return;
  at::NoGradGuard no_grad;
  compute_ = master_.to(compute_dtype_);
  point_into(compute_);
}

void FlatUnit::reshard() {
  TORCH_INTERNAL_ASSERT(uses_ > 0, "reshard without unshard");
  if (--uses_ > 0 || shares_master()) return;
  for (Slot& slot : slots_) slot.param.data = at::Tensor();
  compute_ = at::Tensor();
}

}  // namespace dsv3
