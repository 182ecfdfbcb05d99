#pragma once
// y = x wᵀ + bias, with the weight outside the autograd graph.

#include "dsv3/ops/options.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

// x: [..., in] of w.data's dtype; w: [out, in]; bias: [out] or nullptr. Returns [..., out].
// Backward: dx by autograd; dW and dbias are added to their grad. No rows is valid.
// Throws std::logic_error when a trainable weight meets an x outside the graph: its gradient would be lost.
at::Tensor linear(const OpsOptions& ops, const at::Tensor& x, Param& w, Param* bias = nullptr);

// The same product computed at least in fp32 whatever the dtypes are (the router's logits). Returns fp32 or
// fp64.
at::Tensor linear_fp32(const at::Tensor& x, Param& w);

// Shared by every operator that owns a weight.
void check_in_graph(const char* op, const at::Tensor& x, const Param& w);
// w.grad += dyᵀ x; dy: [rows, out], x: [rows, in] of one dtype.
void add_weight_grad(const OpsOptions& ops, Param& w, const at::Tensor& dy, const at::Tensor& x);

// dy w, the gradient of linear's input; dy: [rows, out].
at::Tensor matmul_by_weight(const OpsOptions& ops, const at::Tensor& dy, const Param& w);

}  // namespace dsv3
