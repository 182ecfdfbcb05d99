#pragma once
// Operators against plain compositions of ATen's on ordinary leaf tensors: values, gradients, meta shapes,
// Jacobians.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "dsv3/ops/options.h"
#include "dsv3/ops/param.h"
#include "support/tensors.h"

namespace dsv3::test {

using Tensors = std::vector<at::Tensor>;
using Params = std::vector<Param>;
// The operator under test: differentiable inputs x, weights w. Constants that it captures follow x's device.
using Op = std::function<at::Tensor(const Tensors& x, Params& w)>;
// The same in public ATen operators; all arguments are leaves.
using Oracle = std::function<at::Tensor(const Tensors& x, const Tensors& w)>;

inline OpsOptions options() { return {.backend = backend()}; }

inline at::Tensor random(at::IntArrayRef shape, uint64_t seed = 1) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kDouble);
}

inline at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

inline Param param(const at::Tensor& data) {
  return {data.detach().clone(),
          at::zeros(data.sizes(), data.options().dtype(at_least_fp32(data.scalar_type())))};
}

struct Gradients {
  at::Tensor y, dy;
  Tensors dx, dw;
};

inline Tensors to(const Tensors& tensors, const at::TensorOptions& where) {
  Tensors out;
  for (const at::Tensor& t : tensors) out.push_back(t.to(where));
  return out;
}

inline at::Tensor grad_of(const at::Tensor& x) { return x.grad().defined() ? x.grad() : at::zeros_like(x); }

// Forward and backward of the operator with a fixed dy.
inline Gradients run_op(const Tensors& x, const Tensors& w, const Op& op) {
  Tensors leaves;
  Params params;
  for (const at::Tensor& t : x) leaves.push_back(leaf(t));
  for (const at::Tensor& t : w) params.push_back(param(t));
  Gradients out;
  out.y = op(leaves, params);
  out.dy = out.y.is_meta() ? at::empty_like(out.y) : random(out.y.sizes(), 77).to(out.y.options());
  out.y.backward(out.dy);
  for (const at::Tensor& t : leaves) out.dx.push_back(grad_of(t));
  for (const Param& p : params) out.dw.push_back(p.grad);
  return out;
}

inline Gradients run_oracle(const Tensors& x, const Tensors& w, const Oracle& oracle, const at::Tensor& dy) {
  Tensors leaves, weights;
  for (const at::Tensor& t : x) leaves.push_back(leaf(t.to(at::kDouble)));
  for (const at::Tensor& t : w) weights.push_back(leaf(t.to(at::kDouble)));
  Gradients out;
  out.y = oracle(leaves, weights);
  out.y.backward(dy.to(at::kDouble));
  for (const at::Tensor& t : leaves) out.dx.push_back(grad_of(t));
  for (const at::Tensor& t : weights) out.dw.push_back(grad_of(t));
  return out;
}

inline void expect_equal(const Gradients& a, const Gradients& b, double tolerance) {
  EXPECT_LE(relative_error(a.y, b.y), tolerance) << "y";
  for (size_t i = 0; i < a.dx.size(); ++i)
    EXPECT_LE(relative_error(a.dx[i], b.dx[i]), tolerance) << "dx of input " << i;
  for (size_t i = 0; i < a.dw.size(); ++i)
    EXPECT_LE(relative_error(a.dw[i], b.dw[i]), tolerance) << "dw of weight " << i;
}

// x, w: fp64. At fp64, fp32 and bf16 the operator agrees with the oracle, which computes in fp64 on the same
// rounded arguments, and its meta run gives the same shapes and dtypes. bf16 rounds by 2^-9 = 0.2% at every
// stage that it stores, and these operators store few: 1%.
inline void expect_agrees(const Tensors& x, const Tensors& w, const Op& op, const Oracle& oracle,
                          double bf16_tolerance = 1e-2) {
  for (auto [dtype, tolerance] : {std::pair(at::kDouble, 1e-12), std::pair(at::kFloat, 1e-5),
                                  std::pair(at::kBFloat16, bf16_tolerance)}) {
    SCOPED_TRACE(at::toString(dtype));
    const Tensors xs = to(x, dtype), ws = to(w, dtype);
    const Gradients got = run_op(xs, ws, op);
    expect_equal(got, run_oracle(xs, ws, oracle, got.dy), tolerance);

    const Gradients meta = run_op(to(xs, at::kMeta), to(ws, at::kMeta), op);
    EXPECT_EQ(meta.y.sizes(), got.y.sizes());
    EXPECT_EQ(meta.y.scalar_type(), got.y.scalar_type());
    EXPECT_TRUE(meta.y.is_meta());
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(meta.dx[i].sizes(), x[i].sizes());
  }
}

// Central differences of sum(y · dy) by every element of every input and weight, in fp64.
inline void expect_jacobian(const Tensors& x, const Tensors& w, const Op& op) {
  const Gradients exact = run_op(x, w, op);
  at::NoGradGuard no_grad;
  // Thousands of calls on a few numbers: threads would only wait for each other.
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  Tensors inputs;
  Params params;
  for (const at::Tensor& t : x) inputs.push_back(t.clone());
  for (const at::Tensor& t : w) params.push_back({t.clone(), {}});
  const auto difference = [&](const at::Tensor& varied) {
    constexpr double kStep = 1e-6;
    at::Tensor out = at::empty_like(varied);
    double* value = varied.data_ptr<double>();
    for (int64_t i = 0; i < varied.numel(); ++i) {
      const double kept = value[i];
      value[i] = kept + kStep;
      const at::Tensor above = op(inputs, params);
      value[i] = kept - kStep;
      const at::Tensor below = op(inputs, params);
      value[i] = kept;
      out.data_ptr<double>()[i] = ((above - below) * exact.dy).sum().item<double>() / (2 * kStep);
    }
    return out;
  };
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_LT(relative_error(exact.dx[i], difference(inputs[i])), 1e-7) << "dx of input " << i;
  for (size_t i = 0; i < w.size(); ++i)
    EXPECT_LT(relative_error(exact.dw[i], difference(params[i].data)), 1e-7) << "dw of weight " << i;
  at::set_num_threads(threads);
}

}  // namespace dsv3::test
