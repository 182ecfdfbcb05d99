#pragma once
// Who keeps a collective from completing, as far as a store that all ranks share can tell: Gloo names nobody.

#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace dsv3 {

// "rank 1, rank 3": the ranks of 0 to world - 1 without `key` + rank in the store.
std::string absent_ranks(const c10::intrusive_ptr<c10d::Store>& store, const std::string& key, int world);

// Says in the store that a collective failed on `rank`, and names who does not say so within two seconds.
// When the store itself does not answer: `server`, and why. server: the rank that serves it, "rank 0"; "" for
// none of them.
std::string silent_ranks(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world,
                         const std::string& server);

}  // namespace dsv3
