#pragma once
// The one public header that shows c10d: groups that a program of one's own has already.

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "dsv3/comm/mesh.h"

namespace dsv3 {

// Back ends for the device that the model lives on, e.g. ProcessGroupGloo or ProcessGroupNCCL. Each holds the
// ranks that docs/design.md names for it, in that order; they must outlive nothing: the mesh shares them.
struct CallerGroups {
  c10::intrusive_ptr<c10d::Backend> data;         // all ranks that shard one copy of the model
  c10::intrusive_ptr<c10d::Backend> expert_data;  // those of them that hold the same experts
  c10::intrusive_ptr<c10d::Backend> expert;       // those that share the experts among them: consecutive
  c10::intrusive_ptr<c10d::Backend> replicate;    // equal shards of the copies; none: one copy
  c10::intrusive_ptr<c10d::Backend> world;        // all ranks; none with one copy: data
  c10::intrusive_ptr<c10d::Store>
      store;  // of all ranks: a collective that fails names who is silent. May be none
};

// A mesh over the caller's groups; its layout follows from their sizes. UsageError when these contradict each
// other (data = expert · expert_data, world = data · replicate).
Mesh mesh_from_groups(const CallerGroups& groups, at::Device device = at::kCPU);

std::shared_ptr<Transport> c10d_transport(c10::intrusive_ptr<c10d::Backend> backend);

}  // namespace dsv3
