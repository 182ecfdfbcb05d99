#pragma once
// A weight as the operators see it. See docs/design.md, "Parameters are not autograd leaves".

#include <ATen/core/Tensor.h>

namespace dsv3 {

// Owned by a unit, at a stable address: backward nodes keep a Param* and read data when they run, because the
// buffer may have been freed and refilled since the forward pass. So data never enters save_for_backward nor
// a recording op.
struct Param {
  at::Tensor data;  // view of the unit's compute buffer, compute dtype; defined between unshard and reshard
  at::Tensor
      grad;  // view of the unit's gradient buffer, at least fp32, added to by backward; undefined: frozen
};

}  // namespace dsv3
