#pragma once
// The parameters of one unit, asked for by role; names and shapes stay in the table.

#include <array>

#include "dsv3/config/param_table.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

// Param addresses are stable while the model lives. A unit with sharded experts points into two flat buffers.
class UnitParams {
 public:
  Param& operator[](Role role) const { return *params_[static_cast<size_t>(role)]; }
  Param* find(Role role) const { return params_[static_cast<size_t>(role)]; }
  void set(Role role, Param* param) { params_[static_cast<size_t>(role)] = param; }

 private:
  std::array<Param*, static_cast<size_t>(Role::count)> params_{};
};

}  // namespace dsv3
