#pragma once
// What commands do once for all ranks.

#include <functional>

#include "dsv3/comm/mesh.h"

namespace dsv3 {

// From here on only rank 0 prints: other ranks' standard output goes to /dev/null.
void speak_on_rank_zero(const Mesh& mesh);

// fn on rank 0. An Error that it throws is thrown on every rank, so that the run ends with one message and
// one code. All ranks call it.
void on_rank_zero(const Mesh& mesh, const std::function<void()>& fn);

}  // namespace dsv3
