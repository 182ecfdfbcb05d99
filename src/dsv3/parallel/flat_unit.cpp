#include "dsv3/parallel/flat_unit.h"

#include <algorithm>

#include "dsv3/ops/options.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

constexpr int64_t kAlignment = 32;  // elements: 64 bytes of bf16, 128 of fp32

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

FlatUnit::FlatUnit(const std::vector<const ParamSpec*>& specs, const FlatUnitOptions& options)
    : options_(options) {
  for (const ParamSpec* spec : specs) {
    const int64_t numel = spec->numel() / options.parts;
    slots_.push_back({spec, spec->shape, options.part * numel, 0, numel, {}});
    slots_.back().shape[0] /= options.parts;
  }
  // What decays first: each treatment is one range.
  std::stable_sort(slots_.begin(), slots_.end(),
                   [](const Slot& a, const Slot& b) { return a.spec->decay && !b.spec->decay; });
  for (Slot& slot : slots_) {
    slot.offset = size_;
    size_ = round_up(size_ + slot.numel, kAlignment);
  }
  size_ = round_up(size_, kAlignment * options.shard->size());
  shard_size_ = size_ / options.shard->size();

  const int64_t begin = shard_size_ * options.shard->rank(), end = begin + shard_size_;
  for (const Slot& slot : slots_) {
    const int64_t from = std::max(slot.offset, begin), to = std::min(slot.offset + slot.numel, end);
    if (from >= to) continue;
    pieces_.push_back({slot.spec, slot.first + from - slot.offset, from - begin, to - from});
    const Piece& piece = pieces_.back();
    if (ranges_.empty() || ranges_.back().decay != slot.spec->decay)
      ranges_.push_back({piece.offset, 0, slot.spec->decay});
    ranges_.back().end = piece.offset + piece.count;
  }

  const auto tensors = at::TensorOptions().device(options.device).dtype(at_least_fp32(options.compute_dtype));
  master_ = at::zeros({shard_size_}, tensors);
  grad_ = at::zeros({options.trainable ? shard_size_ : 0}, tensors);
  if (alone()) {
    if (options.trainable) point_grad(grad_);
    if (master_.scalar_type() == options.compute_dtype) point_data(gathered_ = master_);
  }
}

void FlatUnit::point_data(const at::Tensor& buffer) {
  for (Slot& slot : slots_)
    slot.param.data =
        buffer.defined() ? buffer.narrow(0, slot.offset, slot.numel).view(slot.shape) : at::Tensor();
}

void FlatUnit::point_grad(const at::Tensor& buffer) {
  for (Slot& slot : slots_)
    slot.param.grad =
        buffer.defined() ? buffer.narrow(0, slot.offset, slot.numel).view(slot.shape) : at::Tensor();
}

void FlatUnit::prefetch() {
  if (gathered_.defined() || alone()) return;
  at::NoGradGuard no_grad;
  const at::Tensor shard = master_.to(options_.compute_dtype);  // the master itself when dtypes are equal
  gathered_ = options_.shard->buffers().empty(size_, shard.options());
  gather_ = options_.shard->all_gather(gathered_, shard, options_.name);
}

void FlatUnit::unshard() {
  if (uses_++ > 0 || is_master(gathered_)) return;
  at::NoGradGuard no_grad;
  prefetch();
  gather_.wait();
  if (alone()) {
    gathered_ = options_.shard->buffers().empty(size_, master_.options().dtype(options_.compute_dtype));
    gathered_.copy_(master_);
  }
  point_data(gathered_);
}

void FlatUnit::reshard() {
  TORCH_INTERNAL_ASSERT(uses_ > 0, "reshard without unshard");
  if (--uses_ > 0 || is_master(gathered_)) return;
  point_data(at::Tensor());
  gathered_ = at::Tensor();
}

void FlatUnit::zero_grad() {
  wait_grad();
  if (full_grad_.defined()) {  // of a step that was given up
    point_grad(at::Tensor());
    full_grad_ = at::Tensor();
  }
  grad_.zero_();
  grad_is_zero_ = true;
}

void FlatUnit::open_grad() {
  if (!options_.trainable || alone() || (full_grad_.defined() && !reduce_)) return;
  wait_grad();
  full_grad_ = options_.shard->buffers().empty(size_, grad_.options()).zero_();
  point_grad(full_grad_);
}

bool FlatUnit::reduce_grad() {
  if (!full_grad_.defined() || reduce_) return false;
  point_grad(at::Tensor());
  // The first sum of a step needs nothing beside it.
  reduced_ = grad_is_zero_ ? grad_ : options_.shard->buffers().empty(shard_size_, grad_.options());
  reduce_ = options_.shard->reduce_scatter(reduced_, full_grad_, options_.name);
  return true;
}

void FlatUnit::wait_grad() {
  if (!reduce_) return;
  reduce_.wait();
  at::NoGradGuard no_grad;
  if (!grad_is_zero_) grad_.add_(reduced_);
  grad_is_zero_ = false;
  full_grad_ = reduced_ = at::Tensor();
}

void FlatUnit::finish_grad() {
  if (!options_.trainable) return;
  reduce_grad();
  wait_grad();
  if (options_.replicate->size() > 1) options_.replicate->all_reduce(grad_, options_.name).wait();
}

void FlatUnit::reset() {
  ++generation_;
  uses_ = 0;
  gather_ = Work();
  reduce_ = Work();
  full_grad_ = reduced_ = at::Tensor();
  if (is_master(gathered_)) return;
  point_data(at::Tensor());
  gathered_ = at::Tensor();
  if (!alone()) point_grad(at::Tensor());
}

Unsharded::Unsharded(std::vector<FlatUnit*> units) {
  // All under way before the first is waited for.
  for (FlatUnit* unit : units) unit->prefetch();
  for (FlatUnit* unit : units) {
    unit->unshard();
    units_.emplace_back(unit, unit->generation_);
  }
}

Unsharded::~Unsharded() {
  for (const auto& [unit, generation] : units_)
    if (generation == unit->generation_) unit->reshard();
}

}  // namespace dsv3
