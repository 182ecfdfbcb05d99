// Dense FFN, mixture of experts and the entrance of an MTP module.

#include "dsv3/model/block.h"
#include "dsv3/ops/grouped_mlp.h"
#include "dsv3/ops/linear.h"
#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/swiglu.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

Tensor swiglu_ffn(const OpsOptions& ops, const Tensor& x, Param& gate, Param& up, Param& down) {
  return linear(ops, swiglu(linear(ops, x, gate), linear(ops, x, up)), down);
}

BlockOutput moe(const PassContext& pass, const UnitParams& p, const RouterState& state, const Tensor& x_BSH,
                const Replay& replay) {
  const BlockShared& shared = *pass.shared;
  const OpsOptions& ops = shared.ops;
  const ExpertDispatch& dispatch = *shared.dispatch;
  const Tensor x_TH = x_BSH.reshape({-1, x_BSH.size(-1)});
  BlockOutput out;
  out.routing = router(x_TH, p[Role::router], state.bias_E, shared.router, replay.ids_TK);
  out.plan =
      replay.plan ? replay.plan : dispatch.plan(out.routing.ids_TK, "layer " + std::to_string(state.layer));
  SentRows sent = dispatch.send(ops, x_TH, out.routing.weight_TK, out.plan);
  Tensor of_shared;
  if (shared.config.n_shared_experts > 0)
    of_shared =
        swiglu_ffn(ops, x_BSH, p[Role::shared_gate_proj], p[Role::shared_up_proj], p[Role::shared_down_proj]);
  const ExpertRows rows = dispatch.receive(std::move(sent));
  const Tensor y_RH = grouped_mlp(ops, rows.x_RH, rows.weight_R, out.plan->rows_e, p[Role::experts_gate_up],
                                  p[Role::experts_down]);
  out.y_BSH = dispatch.combine(ops, y_RH, out.plan).view(x_BSH.sizes());
  if (of_shared.defined()) out.y_BSH = out.y_BSH + of_shared;
  if (shared.balance.kind != BalanceKind::none)
    out.balance_loss =
        balance_loss(out.routing, pass.valid_BS.defined() ? pass.valid_BS.reshape({-1}) : Tensor(),
                     x_BSH.size(0), shared.balance);
  return out;
}

}  // namespace

BlockOutput ffn_half(const PassContext& pass, const UnitParams& p, const RouterState* router_state,
                     const Tensor& x_BSH, const Replay& replay) {
  const BlockShared& shared = *pass.shared;
  const Tensor x = rms_norm(shared.ops, x_BSH, p[Role::post_attention_layernorm], shared.config.rms_norm_eps);
  BlockOutput out;
  if (router_state) {
    out = moe(pass, p, *router_state, x, replay);
  } else {
    out.y_BSH = swiglu_ffn(shared.ops, x, p[Role::gate_proj], p[Role::up_proj], p[Role::down_proj]);
  }
  out.y_BSH = x_BSH + out.y_BSH;
  return out;
}

Tensor mtp_input(const PassContext& pass, const UnitParams& p, const Tensor& embedded_BSH,
                 const Tensor& hidden_BSH) {
  const OpsOptions& ops = pass.shared->ops;
  const double eps = pass.shared->config.rms_norm_eps;
  return linear(ops,
                at::cat({rms_norm(ops, embedded_BSH, p[Role::enorm], eps),
                         rms_norm(ops, hidden_BSH, p[Role::hnorm], eps)},
                        -1),
                p[Role::eh_proj]);
}

}  // namespace dsv3
