#include "dsv3/ops/grouped_mlp.h"

#include "dsv3/ops/cpu/grouped_gemm.h"
#include "dsv3/ops/linear.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// The three products of a grouped linear layer, by one of the implementations.
struct Grouped {
  OpsOptions ops;
  const std::vector<int64_t>& rows_e;

  // y[r] = w_e x[r]; w: [e, out, in].
  Tensor forward(const Tensor& x, const Tensor& w) const {
    if (kernel(x)) return cpu::grouped_matmul(x, w, rows_e, /*transposed=*/true);
    if (grouped_mm(x)) return at::_grouped_mm(x, w.transpose(1, 2), offsets(x));
    Tensor y = at::empty({x.size(0), w.size(1)}, x.options());
    each([&](int64_t e, int64_t begin, int64_t rows) {
      Tensor part = y.narrow(0, begin, rows);
      at::mm_out(part, x.narrow(0, begin, rows), w.select(0, e).t());
    });
    return y;
  }
  // dx[r] = w_eᵀ dy[r].
  Tensor backward(const Tensor& dy, const Tensor& w) const {
    if (kernel(dy)) return cpu::grouped_matmul(dy, w, rows_e, /*transposed=*/false);
    if (grouped_mm(dy)) return at::_grouped_mm(dy, w, offsets(dy));
    Tensor dx = at::empty({dy.size(0), w.size(2)}, dy.options());
    each([&](int64_t e, int64_t begin, int64_t rows) {
      Tensor part = dx.narrow(0, begin, rows);
      at::mm_out(part, dy.narrow(0, begin, rows), w.select(0, e));
    });
    return dx;
  }
  // w.grad_e += dy_eᵀ x_e.
  void weight(Param& w, const Tensor& dy, const Tensor& x) const {
    if (!w.grad.defined()) return;
    if (kernel(x)) return cpu::add_grouped_weight_grad(w.grad, dy, x, rows_e);
    each([&](int64_t e, int64_t begin, int64_t rows) {
      Param slice{{}, w.grad.select(0, e)};
      add_weight_grad(ops, slice, dy.narrow(0, begin, rows), x.narrow(0, begin, rows));
    });
  }

 private:
  bool kernel(const Tensor& x) const {
    return ops.fast_on(x) && (ops.grouped == GroupedGemm::automatic || ops.grouped == GroupedGemm::mkl);
  }
  bool grouped_mm(const Tensor& x) const {
    return ops.grouped == GroupedGemm::grouped_mm && x.scalar_type() != at::kDouble && x.size(0) > 0 &&
           !x.is_meta();
  }
  Tensor offsets(const Tensor& x) const {
    std::vector<int32_t> ends(rows_e.size());
    int64_t end = 0;
    for (size_t e = 0; e < rows_e.size(); ++e) ends[e] = static_cast<int32_t>(end += rows_e[e]);
    return at::tensor(ends, at::kInt).to(x.device());
  }
  template <class Fn>
  void each(Fn fn) const {
    int64_t begin = 0;
    for (size_t e = 0; e < rows_e.size(); ++e) {
      if (rows_e[e] > 0) fn(static_cast<int64_t>(e), begin, rows_e[e]);
      begin += rows_e[e];
    }
  }
};

// silu(gate) · up of h = [gate ; up], times weight when given.
Tensor activation(const OpsOptions& ops, const Tensor& h, const Tensor& weight_R) {
  if (ops.fast_on(h)) return cpu::swiglu_rows(h, weight_R);
  const auto parts = h.chunk(2, -1);
  const Tensor act = at::silu(parts[0]) * parts[1];
  return (act * weight_R.unsqueeze(-1)).to(h.scalar_type());
}

struct GroupedMlpFunction : torch::autograd::Function<GroupedMlpFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight_R, OpsOptions ops,
                        const std::vector<int64_t>& rows_e, Param* gate_up, Param* down) {
    const Grouped grouped{ops, rows_e};
    const Tensor h = grouped.forward(x, gate_up->data);
    const Tensor y = grouped.forward(activation(ops, h, weight_R), down->data);
    ctx->save_for_backward({x, weight_R, h});
    ctx->saved_data["rows"] = rows_e;
    ctx->saved_data["ops"] =
        std::vector<int64_t>{static_cast<int64_t>(ops.backend), static_cast<int64_t>(ops.grouped)};
    ctx->saved_data["gate_up"] = reinterpret_cast<int64_t>(gate_up);
    ctx->saved_data["down"] = reinterpret_cast<int64_t>(down);
    return y;
  }

  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight_R = saved[1], &h = saved[2];
    const auto rows_e = ctx->saved_data["rows"].toIntVector();
    const auto kinds = ctx->saved_data["ops"].toIntVector();
    const OpsOptions ops{.backend = static_cast<Backend>(kinds[0]),
                         .grouped = static_cast<GroupedGemm>(kinds[1])};
    Param& gate_up = *reinterpret_cast<Param*>(ctx->saved_data["gate_up"].toInt());
    Param& down = *reinterpret_cast<Param*>(ctx->saved_data["down"].toInt());
    const Grouped grouped{ops, rows_e};
    const Tensor dy = grads[0].contiguous();

    const Tensor dact = grouped.backward(dy, down.data);  // of the weighted activation, [R, I]
    if (down.grad.defined()) grouped.weight(down, dy, activation(ops, h, weight_R));
    auto [dh, dweight_R] = ops.fast_on(h) ? cpu::swiglu_rows_backward(h, weight_R, dact)
                                          : activation_backward(h, weight_R, dact);
    grouped.weight(gate_up, dh, x);
    return {grouped.backward(dh, gate_up.data), dweight_R, {}, {}, {}, {}};
  }

  static std::tuple<Tensor, Tensor> activation_backward(const Tensor& h, const Tensor& weight_R,
                                                        const Tensor& dact) {
    const auto parts = h.chunk(2, -1);
    const Tensor silu = at::silu(parts[0]);
    const Tensor dweight_R = (dact.to(weight_R.scalar_type()) * (silu * parts[1])).sum(-1);
    const Tensor d = (dact * weight_R.unsqueeze(-1)).to(h.scalar_type());
    return {at::cat({at::silu_backward(d * parts[1], parts[0]), d * silu}, -1), dweight_R};
  }
};

}  // namespace

Tensor grouped_mlp(const OpsOptions& ops, const Tensor& x_RH, const Tensor& weight_R,
                   const std::vector<int64_t>& rows_e, Param& gate_up, Param& down) {
  check_in_graph("grouped_mlp", x_RH, gate_up);
  check_in_graph("grouped_mlp", x_RH, down);
  return GroupedMlpFunction::apply(x_RH.contiguous(), weight_R.contiguous(), ops, rows_e, &gate_up, &down);
}

}  // namespace dsv3
