#pragma once
// Products of many small matrices on the CPU: one GEMM an expert, each on one thread, experts side by side.

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

namespace dsv3::cpu {

// y[r] = x[r] w_eᵀ (transposed; w: [e, out, in]) or x[r] w_e (w: [e, in, out]), rows expert-major. bf16,
// fp32, fp64.
at::Tensor grouped_matmul(const at::Tensor& x, const at::Tensor& w, const std::vector<int64_t>& rows_e,
                          bool transposed);

// grad[e] += dy_eᵀ x_e; grad: [e, out, in], at least fp32.
void add_grouped_weight_grad(at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x,
                             const std::vector<int64_t>& rows_e);

// weight[r] · silu(gate) · up of h_R(2I) = [gate ; up] → [R, I], computed at least in fp32 and rounded once.
at::Tensor swiglu_rows(const at::Tensor& h, const at::Tensor& weight_R);
// Returns dh [R, 2I] and dweight [R].
std::tuple<at::Tensor, at::Tensor> swiglu_rows_backward(const at::Tensor& h, const at::Tensor& weight_R,
                                                        const at::Tensor& dact);

}  // namespace dsv3::cpu
