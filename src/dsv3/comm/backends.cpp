#include "dsv3/comm/backends.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "dsv3/base/error.h"
#include "dsv3/comm/c10d.h"

namespace dsv3 {
namespace {

// A function's static: register_nccl runs before main, in no fixed order with this file's own statics.
MakeNccl& registered() {
  static MakeNccl make = nullptr;
  return make;
}

}  // namespace

bool register_nccl(MakeNccl make) {
  registered() = make;
  return true;
}

GroupFactory::GroupFactory(c10::intrusive_ptr<c10d::Store> store, const LaunchEnv& env, at::Device device,
                           std::chrono::milliseconds timeout)
    : store_(std::move(store)), env_(env), device_(device), timeout_(timeout) {
  if (device_.is_cuda() && !registered())
    throw UsageError(device_.str(), "this program was built without NCCL", "`make cuda` builds one with it");
}

std::shared_ptr<Transport> GroupFactory::form(const std::string& name, const std::vector<int>& ranks) const {
  // Groups of one kind differ by their first rank.
  auto store = c10::make_intrusive<c10d::PrefixStore>(name + " " + std::to_string(ranks.front()), store_);
  const auto rank = static_cast<int>(std::find(ranks.begin(), ranks.end(), env_.rank) - ranks.begin());
  const auto size = static_cast<int>(ranks.size());
  return c10d_transport(device_.is_cuda() ? registered()(store, rank, size, env_.local_rank, timeout_)
                                          : make_gloo(store, rank, size, env_.one_host(), timeout_));
}

}  // namespace dsv3
