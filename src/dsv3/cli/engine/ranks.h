#pragma once
// What commands do once for all ranks.

#include "dsv3/comm/mesh.h"

namespace dsv3 {

// From here on only rank 0 prints: other ranks' standard output goes to /dev/null.
void speak_on_rank_zero(const Mesh& mesh);

}  // namespace dsv3
