#include "own_groups.h"

#include <dsv3/base/error.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

dsv3::Mesh own_groups(const char* path) {
  const char *rank_text = std::getenv("RANK"), *world_text = std::getenv("WORLD_SIZE");
  const int rank = rank_text ? std::atoi(rank_text) : 0, world = world_text ? std::atoi(world_text) : 0;
  if (world < 2 || world % 2 != 0 || rank < 0 || rank >= world)
    throw dsv3::UsageError("WORLD_SIZE", "has to be even, and RANK below it", "start every rank with both");
  auto store = c10::make_intrusive<c10d::FileStore>(path, world);
  // The group of every `step`-th rank from `first` on, `size` of them.
  auto group = [&](const std::string& name, int first, int step, int size) {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::seconds(60));
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(name + std::to_string(first), store);
    return c10::make_intrusive<c10d::ProcessGroupGloo>(prefixed, (rank - first) / step, size, options);
  };
  return dsv3::mesh_from_groups({.data = group("data", 0, 1, world),
                                 .expert_data = group("expert_data", rank % 2, 2, world / 2),
                                 .expert = group("expert", rank / 2 * 2, 1, 2),
                                 .replicate = {},
                                 .world = {},
                                 .store = store});
}
