#pragma once
// What moves bytes between the ranks of one group. Group adds counting, names and errors; nobody else calls
// this.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace dsv3 {

// Rows that an all-to-all moves, for each slot and, inside a slot, for each peer: rows[slot · size + peer].
// Both buffers lie in that order, so rows received for a slot are contiguous.
using SlotRows = std::vector<int64_t>;

// A collective under way. Its tensors stay as they are until wait() has returned.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void wait() = 0;  // throws when the collective failed; called once
};

// Every rank of the group makes the same calls in the same order. Tensors are contiguous. Sums are taken in
// the tensor's own dtype.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // out: [size · n] from every rank's in: [n]. in may be this rank's part of out.
  virtual std::unique_ptr<Pending> all_gather(const at::Tensor& out, const at::Tensor& in) = 0;
  // out: [n], the sum over ranks of this rank's part of their in: [size · n].
  virtual std::unique_ptr<Pending> reduce_scatter(const at::Tensor& out, const at::Tensor& in) = 0;
  virtual std::unique_ptr<Pending> all_reduce(const at::Tensor& x) = 0;  // the sum, in place
  virtual std::unique_ptr<Pending> broadcast(const at::Tensor& x, int root) = 0;
  // out: [sum of recv, …], in: [sum of send, …]; send[slot, p] of this rank = recv[slot, this rank] of p.
  virtual std::unique_ptr<Pending> all_to_all(const at::Tensor& out, const at::Tensor& in,
                                              const SlotRows& recv, const SlotRows& send) = 0;
};

// The first line of what a transport said, printable, without libtorch's call stack.
std::string transport_error(const std::exception& error);

// A group of one: copies.
std::shared_ptr<Transport> single_transport();

}  // namespace dsv3
