#pragma once
// Where the ranks of a run meet and form their groups.

#include "dsv3/comm/mesh.h"

namespace dsv3 {

// All ranks of env.world call it. RunError naming the place when they do not meet in time.
Mesh join(const LaunchEnv& env, const MeshLayout& layout, at::Device device, int64_t timeout_s);

}  // namespace dsv3
