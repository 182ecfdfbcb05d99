#pragma once
// The routed experts' SwiGLU networks over expert-major rows.

#include <vector>

#include "dsv3/ops/options.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

// y[r] = weight[r] · down_e( silu(gate_e x[r]) · (up_e x[r]) ) for each row r of expert e.
//   x_RH: expert-major; weight_R: at least fp32; rows_e: rows of each of the e local experts, summing to R;
//   gate_up: [e, 2I, H], gate rows first; down: [e, H, I], both of x's dtype.
// The routing weight multiplies before down (the same product, on a narrower tensor), so that combining is a
// plain sum. Returns y_RH. Backward: dx and dweight by autograd, dW into the two grads. R = 0 and experts
// without rows are valid.
at::Tensor grouped_mlp(const OpsOptions& ops, const at::Tensor& x_RH, const at::Tensor& weight_R,
                       const std::vector<int64_t>& rows_e, Param& gate_up, Param& down);

}  // namespace dsv3
