#include "dsv3/ops/linear.h"

#include "dsv3/ops/cpu/gemm.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

Tensor rows_of(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

Tensor multiply(const OpsOptions& ops, const Tensor& x, const Param& w, const Param* bias) {
  if (ops.fast_on(x) && x.scalar_type() == at::kBFloat16) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = w.data.size(0);
    Tensor y = cpu::matmul_nt(rows_of(x), w.data).view(shape);
    return bias ? y.add_(bias->data) : y;
  }
  return at::linear(x, w.data, bias ? bias->data : Tensor());
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, OpsOptions ops, Param* w, Param* bias) {
    ctx->save_for_backward({x});
    ctx->saved_data["backend"] = static_cast<int64_t>(ops.backend);
    ctx->saved_data["w"] = reinterpret_cast<int64_t>(w);
    ctx->saved_data["bias"] = reinterpret_cast<int64_t>(bias);
    return multiply(ops, x, *w, bias);
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    const Tensor x = ctx->get_saved_variables()[0];
    OpsOptions ops{.backend = static_cast<Backend>(ctx->saved_data["backend"].toInt())};
    Param& w = *reinterpret_cast<Param*>(ctx->saved_data["w"].toInt());
    auto* bias = reinterpret_cast<Param*>(ctx->saved_data["bias"].toInt());
    const Tensor dy = rows_of(grads[0]);
    if (w.grad.defined()) add_weight_grad(ops, w, dy, rows_of(x));
    if (bias && bias->grad.defined()) bias->grad.add_(dy.sum(0, false, bias->grad.scalar_type()));
    return {matmul_by_weight(ops, dy, w).view(x.sizes()), {}, {}, {}};
  }
};

struct LinearFp32Function : torch::autograd::Function<LinearFp32Function> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, Param* w) {
    ctx->save_for_backward({x});
    ctx->saved_data["w"] = reinterpret_cast<int64_t>(w);
    const auto dtype = at_least_fp32(x.scalar_type());
    return at::linear(x.to(dtype), w->data.to(dtype));
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    const Tensor x = ctx->get_saved_variables()[0];
    Param& w = *reinterpret_cast<Param*>(ctx->saved_data["w"].toInt());
    const Tensor dy = rows_of(grads[0]);
    if (w.grad.defined()) w.grad.addmm_(dy.t(), rows_of(x).to(dy.scalar_type()));
    return {dy.mm(w.data.to(dy.scalar_type())).to(x.scalar_type()).view(x.sizes()), {}};
  }
};

}  // namespace

void check_in_graph(const char* op, const Tensor& x, const Param& w) {
  if (at::GradMode::is_enabled() && w.grad.defined() && !x.requires_grad())
    throw std::logic_error(std::string(op) + ": x must require grad, else the weight's gradient is lost");
}

void add_weight_grad(const OpsOptions& ops, Param& w, const Tensor& dy, const Tensor& x) {
  if (dy.size(0) == 0) return;
  if (dy.scalar_type() == w.grad.scalar_type()) {
    w.grad.addmm_(dy.t(), x);
  } else if (ops.fast_on(x)) {
    cpu::add_matmul_tn(w.grad, dy, x);
  } else {
    w.grad.add_(dy.t().mm(x));
  }
}

Tensor matmul_by_weight(const OpsOptions& ops, const Tensor& dy, const Param& w) {
  if (ops.fast_on(dy) && dy.scalar_type() == at::kBFloat16) return cpu::matmul_nn(dy, w.data);
  return dy.mm(w.data);
}

Tensor linear(const OpsOptions& ops, const Tensor& x, Param& w, Param* bias) {
  check_in_graph("linear", x, w);
  if (bias) check_in_graph("linear", x, *bias);
  if (!at::GradMode::is_enabled() || !x.requires_grad()) {
    at::NoGradGuard no_grad;
    return multiply(ops, x, w, bias);
  }
  return LinearFunction::apply(x, ops, &w, bias);
}

Tensor linear_fp32(const Tensor& x, Param& w) {
  check_in_graph("linear_fp32", x, w);
  if (!at::GradMode::is_enabled() || !x.requires_grad()) {
    at::NoGradGuard no_grad;
    const auto dtype = at_least_fp32(x.scalar_type());
    return at::linear(x.to(dtype), w.data.to(dtype));
  }
  return LinearFp32Function::apply(x, &w);
}

}  // namespace dsv3
