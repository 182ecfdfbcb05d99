#pragma once
// FSDP: the parameters of one unit and one group in flat buffers. Each rank of the group owns one contiguous
// range, in fp32 (or fp64) with its gradient; the whole exists in the compute dtype while it is unsharded,
// and its gradient while backward adds to it. In a group of one the shard is the buffer: nothing is copied
// unless the dtypes differ.

#include <deque>
#include <string>
#include <vector>

#include "dsv3/comm/group.h"
#include "dsv3/config/param_table.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

struct FlatUnitOptions {
  std::string name;                           // "block 3", for collectives
  at::ScalarType compute_dtype = at::kFloat;  // bf16, fp32 or fp64; masters are at least fp32
  at::Device device = at::kCPU;
  bool trainable = true;       // false: no gradient, no optimizer state
  Group* shard = nullptr;      // the ranks that share the buffer: data, or expert_data
  Group* replicate = nullptr;  // the ranks that hold the same shard
  // Of every parameter this rank holds part `part` of `parts` along its first dim (experts under EP).
  int64_t part = 0, parts = 1;
};

class FlatUnit {
 public:
  struct Slot {
    const ParamSpec* spec;
    std::vector<int64_t> shape;  // of this rank's part
    int64_t first;               // element of the whole parameter that the part begins with
    int64_t offset;              // elements into the flat buffer, 64-byte aligned in every dtype
    int64_t numel;               // of this rank's part
    Param param;
  };
  // What lies of one parameter in this rank's shard.
  struct Piece {
    const ParamSpec* spec;
    int64_t element;  // of the whole parameter
    int64_t offset;   // into the shard
    int64_t count;
  };
  // A contiguous part of the shard with one treatment by the optimizer.
  struct Range {
    int64_t begin = 0, end = 0;
    bool decay = false;
  };

  FlatUnit(const std::vector<const ParamSpec*>& specs, const FlatUnitOptions& options);
  FlatUnit(const FlatUnit&) = delete;

  const std::string& name() const { return options_.name; }
  bool trainable() const { return options_.trainable; }
  std::deque<Slot>& slots() { return slots_; }
  const std::vector<Piece>& pieces() const { return pieces_; }
  const std::vector<Range>& ranges() const {
    return ranges_;
  }  // covers the pieces, and what lies between them

  at::Tensor& master() { return master_; }  // flat, this rank's shard
  at::Tensor& grad() { return grad_; }    // flat, of the shard; empty when frozen. Whole after finish_grad()
  int64_t size() const { return size_; }  // elements of the whole buffer, padding included

  // Starts the all-gather unless the unit is unsharded or on its way; unshard() waits for it and fills every
  // Param's data. Calls of unshard nest: the buffer is freed by the reshard that matches the first one.
  void prefetch();
  void unshard();
  void reshard();
  // False also while the all-gather is under way. A unit whose master is its compute buffer counts as
  // sharded.
  bool is_sharded() const { return !gathered_.defined() || is_master(gathered_); }
  bool in_use() const { return uses_ > 0; }

  // Gradient of one step: zero_grad() first; open_grad() before a backward pass that adds to Param::grad;
  // reduce_grad() starts the sum over the group into the shard, which ends in finish_grad() or before the
  // next open_grad(); finish_grad() also sums over the replicas, once a step.
  void zero_grad();
  void open_grad();
  bool reduce_grad();  // false: nothing to do
  void wait_grad();
  void finish_grad();

  // After an error: everything under way is dropped, the unit is sharded, outstanding Unshardeds mean
  // nothing.
  void reset();

 private:
  friend class Unsharded;
  bool alone() const { return options_.shard->size() == 1; }
  // Alone and with equal dtypes the master is the compute buffer, always.
  bool is_master(const at::Tensor& buffer) const { return buffer.defined() && buffer.is_alias_of(master_); }
  void point_data(const at::Tensor& buffer);
  void point_grad(const at::Tensor& buffer);

  FlatUnitOptions options_;
  int64_t size_ = 0, shard_size_ = 0;
  at::Tensor master_, grad_;
  at::Tensor gathered_;   // whole, compute dtype: being filled while gather_ is under way
  at::Tensor full_grad_;  // whole: between open_grad and the end of its reduction
  at::Tensor reduced_;    // shard: what reduce_ writes, when grad_ holds earlier micro-batches
  bool grad_is_zero_ = true;
  Work gather_, reduce_;
  std::deque<Slot> slots_;  // stable addresses
  std::vector<Piece> pieces_;
  std::vector<Range> ranges_;
  int uses_ = 0;
  int generation_ = 0;  // of reset()
};

// Unsharded while it lives.
class Unsharded {
 public:
  explicit Unsharded(std::vector<FlatUnit*> units);
  ~Unsharded();
  Unsharded(const Unsharded&) = delete;
  Unsharded& operator=(const Unsharded&) = delete;

 private:
  std::vector<std::pair<FlatUnit*, int>> units_;  // with the generation that they were unsharded in
};

}  // namespace dsv3
