#pragma once
// Errors that every rank learns of, so that a run ends, or goes on, alike on all of them.

#include <functional>

#include "dsv3/comm/mesh.h"

namespace dsv3 {

// fn on every rank, or on rank 0 alone. An exception of any rank is thrown on every rank: the one of the
// lowest rank, with its code, its text cut after 2,048 bytes. What is no dsv3::Error becomes a RunError. All
// ranks call it.
void on_all_ranks(const Mesh& mesh, const std::function<void()>& fn);
void on_rank_zero(const Mesh& mesh, const std::function<void()>& fn);

}  // namespace dsv3
