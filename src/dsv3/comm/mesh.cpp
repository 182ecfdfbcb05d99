#include "dsv3/comm/mesh.h"

#include <ATen/ATen.h>

#include "dsv3/base/error.h"
#include "dsv3/comm/rendezvous.h"

namespace dsv3 {
namespace {

// `count` ranks, every step-th from `first` on.
std::vector<int> ranks_from(int64_t first, int64_t step, int64_t count) {
  std::vector<int> ranks;
  for (int64_t i = 0; i < count; ++i) ranks.push_back(static_cast<int>(first + i * step));
  return ranks;
}

template <class T>
std::vector<T> sum_over(Group& world, at::Device device, std::vector<T> values, std::string_view what) {
  const at::Tensor x = at::tensor(values).to(device);
  world.all_reduce(x, what).wait();
  const at::Tensor sum = x.cpu();
  const T* data = sum.const_data_ptr<T>();
  return {data, data + values.size()};
}

}  // namespace

MeshLayout MeshLayout::of(const ParallelConfig& parallel, int64_t world) {
  MeshLayout layout{.replicate = parallel.replicate, .shard = parallel.shard, .ep = parallel.ep};
  auto refuse = [&](const char* key, const std::string& what) {
    throw UsageError(std::string("parallel.") + key, what);
  };
  if (world % layout.replicate != 0)
    refuse("replicate", std::to_string(layout.replicate) + " does not divide the world of " +
                            std::to_string(world) + " ranks");
  if (layout.shard == 0) layout.shard = world / layout.replicate;
  if (layout.world() != world)
    refuse("shard", "replicate · shard = " + std::to_string(layout.replicate) + " · " +
                        std::to_string(layout.shard) + ", the world has " + std::to_string(world) + " ranks");
  if (layout.shard % layout.ep != 0)
    refuse("ep", std::to_string(layout.ep) + " does not divide shard = " + std::to_string(layout.shard));
  return layout;
}

std::vector<int> MeshLayout::data_ranks(int64_t rank) const {
  return ranks_from(rank / shard * shard, 1, shard);
}

std::vector<int> MeshLayout::replicate_ranks(int64_t rank) const {
  return ranks_from(rank % shard, shard, replicate);
}

std::vector<int> MeshLayout::expert_ranks(int64_t rank) const { return ranks_from(rank / ep * ep, 1, ep); }

std::vector<int> MeshLayout::expert_data_ranks(int64_t rank) const {
  return ranks_from(rank / shard * shard + rank % ep, ep, shard / ep);
}

struct Mesh::State {
  MeshLayout layout;
  at::Device device = at::kCPU;
  std::shared_ptr<CollectiveLog> log = std::make_shared<CollectiveLog>();
  std::unique_ptr<Group> world, data, replicate, expert, expert_data;
};

Mesh Mesh::from_transports(const Transports& transports, at::Device device) {
  auto state = std::make_shared<State>();
  state->device = device;
  state->layout = {.replicate = transports.replicate->size(),
                   .shard = transports.data->size(),
                   .ep = transports.expert->size()};
  const MeshLayout& layout = state->layout;
  if (transports.world->size() != layout.world())
    throw UsageError("mesh", "world has " + std::to_string(transports.world->size()) +
                                 " ranks, replicate · data has " + std::to_string(layout.world()));
  if (layout.ep * transports.expert_data->size() != layout.shard)
    throw UsageError("mesh", "expert · expert_data has " +
                                 std::to_string(layout.ep * transports.expert_data->size()) +
                                 " ranks, data has " + std::to_string(layout.shard));
  state->log->rank = transports.world->rank();
  auto group = [&](const char* name, const std::shared_ptr<Transport>& transport) {
    return std::make_unique<Group>(name, transport, state->log);
  };
  state->world = group("world", transports.world);
  state->data = group("data", transports.data);
  state->replicate = group("replicate", transports.replicate);
  state->expert = group("expert", transports.expert);
  state->expert_data = group("expert_data", transports.expert_data);
  return Mesh(std::move(state));
}

Mesh Mesh::create(const ParallelConfig& parallel, at::Device device) {
  const LaunchEnv env = LaunchEnv::read();
  const MeshLayout layout = MeshLayout::of(parallel, env.world);
  if (env.world == 1) {
    const auto single = single_transport();
    return from_transports({single, single, single, single, single}, device);
  }
  return join(env, layout, device, parallel.timeout_s);
}

int Mesh::rank() const { return state_->world->rank(); }
int Mesh::world_size() const { return state_->world->size(); }
const MeshLayout& Mesh::layout() const { return state_->layout; }
Group& Mesh::world() const { return *state_->world; }
Group& Mesh::data() const { return *state_->data; }
Group& Mesh::replicate() const { return *state_->replicate; }
Group& Mesh::expert() const { return *state_->expert; }
Group& Mesh::expert_data() const { return *state_->expert_data; }
CollectiveLog& Mesh::log() const { return *state_->log; }

void Mesh::phase(std::string_view name) const {
  if (log().observer) log().observer({CollectiveLog::Event::Kind::phase, "", name, "", log().issued});
}

std::vector<const Group*> Mesh::groups() const {
  return {&world(), &data(), &replicate(), &expert(), &expert_data()};
}

std::vector<double> Mesh::sum(std::span<const double> values, std::string_view what) const {
  return sum_over(world(), state_->device, std::vector<double>(values.begin(), values.end()), what);
}

std::vector<int64_t> Mesh::sum(std::span<const int64_t> values, std::string_view what) const {
  std::vector<int64_t> sent(values.begin(), values.end());
  // Sums modulo 2^64: equal hashes give world · hash on every rank.
  const uint64_t order = log().order_hash;
  sent.push_back(static_cast<int64_t>(order));
  std::vector<int64_t> total = sum_over(world(), state_->device, std::move(sent), what);
  if (static_cast<uint64_t>(total.back()) != order * static_cast<uint64_t>(world_size()))
    throw RunError("rank " + std::to_string(rank()),
                   "the ranks issued different collectives, or in another order",
                   "each rank has to make the same calls");
  total.pop_back();
  return total;
}

}  // namespace dsv3
