#pragma once
// The ranks of a run: world = replicate × shard; ep divides shard, innermost, so that an expert group is
// consecutive ranks.

#include <memory>
#include <span>
#include <vector>

#include "dsv3/comm/group.h"
#include "dsv3/comm/launch_env.h"
#include "dsv3/config/run_config.h"

namespace dsv3 {

// The layout of a world. Rank = (replica · shard + expert_shard · ep + expert_rank).
struct MeshLayout {
  int64_t replicate = 1, shard = 1, ep = 1;

  // UsageError when replicate · shard is not world, or ep does not divide shard.
  static MeshLayout of(const ParallelConfig& parallel, int64_t world);
  int64_t world() const { return replicate * shard; }
  // The ranks of each group that `rank` belongs to.
  std::vector<int> data_ranks(int64_t rank) const;         // one copy of the model
  std::vector<int> replicate_ranks(int64_t rank) const;    // equal shards of all copies
  std::vector<int> expert_ranks(int64_t rank) const;       // share the experts among them
  std::vector<int> expert_data_ranks(int64_t rank) const;  // hold the same experts
};

// What carries each group's collectives.
struct Transports {
  std::shared_ptr<Transport> world, data, replicate, expert, expert_data;
};

// Cheap to copy; copies share the groups.
class Mesh {
 public:
  // Joins the ranks that the environment names (LaunchEnv::read) and forms the groups; one process without a
  // launcher. UsageError for a layout that the world does not allow, RunError when ranks do not meet in
  // parallel.timeout_s.
  static Mesh create(const ParallelConfig& parallel, at::Device device = at::kCPU);
  // The layout follows from the groups' sizes; UsageError when they contradict each other.
  static Mesh from_transports(const Transports& transports, at::Device device = at::kCPU);

  int rank() const;
  int world_size() const;
  const MeshLayout& layout() const;
  int64_t ep() const { return layout().ep; }

  Group& world() const;
  Group& data() const;         // dense parameters are sharded over it
  Group& replicate() const;    // gradients are summed over it after the reduce-scatter
  Group& expert() const;       // tokens travel in it
  Group& expert_data() const;  // experts are sharded over it
  std::vector<const Group*> groups() const;

  // Sums over all ranks, the same bits on each. The sum of integers also compares the ranks' order_hash:
  // RunError when they did not issue the same collectives in the same order so far.
  std::vector<double> sum(std::span<const double> values, std::string_view what) const;
  std::vector<int64_t> sum(std::span<const int64_t> values, std::string_view what) const;

  CollectiveLog& log() const;
  // Says what this rank is at ("forward"), for who wants to know why the others wait.
  void phase(std::string_view name) const;

 private:
  struct State;
  explicit Mesh(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace dsv3
