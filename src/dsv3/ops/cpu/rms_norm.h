#pragma once
// One pass over the rows; sums of each row in fp32 (fp64 for fp64).

#include <ATen/core/Tensor.h>

#include <tuple>

namespace dsv3::cpu {

// x: [..., H] contiguous bf16, fp32 or fp64; w: [H] of x's dtype. Returns y like x and scale [..., 1] = 1 /
// rms.
std::tuple<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, const at::Tensor& w, double eps);

// Returns dx; adds dw to w_grad when it is defined.
at::Tensor rms_norm_backward(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& w,
                             const at::Tensor& dy, at::Tensor& w_grad);

}  // namespace dsv3::cpu
