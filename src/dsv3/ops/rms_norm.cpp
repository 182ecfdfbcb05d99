#include "dsv3/ops/rms_norm.h"

#include "dsv3/ops/cpu/rms_norm.h"
#include "dsv3/ops/linear.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

Tensor inverse_rms(const Tensor& x, double eps) { return x.square().mean(-1, true).add_(eps).rsqrt_(); }

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, OpsOptions ops, Param* w, double eps) {
    ctx->saved_data["backend"] = static_cast<int64_t>(ops.backend);
    ctx->saved_data["w"] = reinterpret_cast<int64_t>(w);
    if (ops.fast_on(x)) {
      auto [y, scale] = cpu::rms_norm(x.contiguous(), w->data, eps);
      ctx->save_for_backward({x, scale});
      return y;
    }
    const Tensor wide = x.to(at_least_fp32(x.scalar_type()));
    const Tensor scale = inverse_rms(wide, eps);
    ctx->save_for_backward({x, scale});
    return w->data * (wide * scale).to(x.scalar_type());
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &scale = saved[1];
    OpsOptions ops{.backend = static_cast<Backend>(ctx->saved_data["backend"].toInt())};
    Param& w = *reinterpret_cast<Param*>(ctx->saved_data["w"].toInt());
    if (ops.fast_on(x))
      return {
          cpu::rms_norm_backward(x.contiguous(), scale, w.data, grads[0].contiguous(), w.grad), {}, {}, {}};
    const auto dtype = scale.scalar_type();
    const Tensor normal = x.to(dtype) * scale;
    const Tensor dy = grads[0].to(dtype);
    if (w.grad.defined()) w.grad.add_((dy * normal).reshape({-1, x.size(-1)}).sum(0));
    const Tensor dn = dy * w.data.to(dtype);
    const Tensor dx = scale * (dn - normal * (dn * normal).mean(-1, true));
    return {dx.to(x.scalar_type()), {}, {}, {}};
  }
};

}  // namespace

Tensor rms_norm(const OpsOptions& ops, const Tensor& x, Param& w, double eps) {
  check_in_graph("rms_norm", x, w);
  if (at::GradMode::is_enabled() && x.requires_grad()) return RmsNormFunction::apply(x, ops, &w, eps);
  at::NoGradGuard no_grad;
  if (ops.fast_on(x)) return std::get<0>(cpu::rms_norm(x.contiguous(), w.data, eps));
  const Tensor wide = x.to(at_least_fp32(x.scalar_type()));
  return w.data * (wide * inverse_rms(wide, eps)).to(x.scalar_type());
}

}  // namespace dsv3
