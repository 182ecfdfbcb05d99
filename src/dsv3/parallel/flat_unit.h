#pragma once
// The parameters of one unit and one group in flat buffers: fp32 (or fp64) masters, gradients, and a compute
// copy while the unit is unsharded. With one rank and equal dtypes the master is the compute buffer and
// nothing is copied.

#include <deque>
#include <functional>
#include <vector>

#include "dsv3/config/param_table.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

struct FlatUnitOptions {
  at::ScalarType compute_dtype = at::kFloat;  // bf16, fp32 or fp64; masters are at least fp32
  at::Device device = at::kCPU;
  std::function<bool(const std::string&)> frozen;  // by parameter name: no gradient, no optimizer state
};

class FlatUnit {
 public:
  struct Slot {
    const ParamSpec* spec;
    int64_t offset;  // elements, 64-byte aligned in every dtype
    bool trainable;
    Param param;
  };
  // A contiguous part of the buffers with one treatment by the optimizer.
  struct Range {
    int64_t begin = 0, end = 0;
    bool decay = false;
  };

  FlatUnit(const std::vector<const ParamSpec*>& specs, const FlatUnitOptions& options);
  FlatUnit(const FlatUnit&) = delete;

  // Fills every Param's data. Calls nest: the buffer is freed by the reshard that matches the first unshard.
  void unshard();
  void reshard();

  at::Tensor& master() { return master_; }                      // flat, trainable parameters first
  at::Tensor& grad() { return grad_; }                          // flat, covers the trainable part only
  const std::vector<Range>& ranges() const { return ranges_; }  // of the trainable part
  std::deque<Slot>& slots() { return slots_; }
  // A parameter's part of the master buffer, with its shape.
  at::Tensor master_of(const Slot& slot) const;

 private:
  bool shares_master() const { return master_.scalar_type() == compute_dtype_; }
  void point_into(const at::Tensor& buffer);

  at::ScalarType compute_dtype_;
  at::Tensor master_, grad_, compute_;
  std::deque<Slot> slots_;  // stable addresses
  std::vector<Range> ranges_;
  int uses_ = 0;
};

// Unsharded while it lives.
class Unsharded {
 public:
  explicit Unsharded(std::vector<FlatUnit*> units) : units_(std::move(units)) {
    for (FlatUnit* unit : units_) unit->unshard();
  }
  ~Unsharded() {
    for (FlatUnit* unit : units_) unit->reshard();
  }
  Unsharded(const Unsharded&) = delete;
  Unsharded& operator=(const Unsharded&) = delete;

 private:
  std::vector<FlatUnit*> units_;
};

}  // namespace dsv3
