#pragma once
// Forms groups of ranks over c10d's back ends: Gloo for CPU tensors, NCCL for CUDA's.

#include <chrono>
#include <memory>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "dsv3/comm/launch_env.h"
#include "dsv3/comm/transport.h"

namespace dsv3 {

class GroupFactory {
 public:
  GroupFactory(c10::intrusive_ptr<c10d::Store> store, const LaunchEnv& env, at::Device device,
               std::chrono::milliseconds timeout);
  // The group of `ranks` (of the world, ascending, this one among them). Every one of them calls it.
  std::shared_ptr<Transport> form(const std::string& name, const std::vector<int>& ranks) const;

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  LaunchEnv env_;
  at::Device device_;
  std::chrono::milliseconds timeout_;
};

// Gloo over 127.0.0.1 when all ranks are on one host, else over GLOO_SOCKET_IFNAME or the host's own address.
c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            bool one_host, std::chrono::milliseconds timeout);

// Set by comm/cuda/nccl.cpp when that file is linked.
using MakeNccl = c10::intrusive_ptr<c10d::Backend> (*)(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                                       int size, int local_rank,
                                                       std::chrono::milliseconds timeout);
bool register_nccl(MakeNccl make);

}  // namespace dsv3
