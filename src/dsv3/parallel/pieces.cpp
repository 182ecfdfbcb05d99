#include "dsv3/parallel/pieces.h"

#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

BlockOutput only(Tensor y_BSH) {
  BlockOutput out;
  out.y_BSH = std::move(y_BSH);
  return out;
}

}  // namespace

std::vector<Piece> block_pieces(Model& model, const PassContext& pass, int64_t layer) {
  const bool mtp = layer >= model.config().num_hidden_layers;
  const UnitParams& p = model.unit(model.table().block_unit(layer));
  RouterState* router = model.router_state(layer);
  const ExecOptions& exec = model.exec();
  auto attention = [&pass, &p, mtp](const std::vector<Tensor>& in) {
    return attention_half(pass, p, mtp ? mtp_input(pass, p, in[0], in[1]) : in[0]);
  };
  auto ffn = [&pass, &p, router, mtp](const Tensor& x, const Replay& replay) {
    BlockOutput out = ffn_half(pass, p, router, x, replay);
    if (mtp)
      out.y_BSH =
          rms_norm(pass.shared->ops, out.y_BSH, p[Role::shared_head_norm], pass.shared->config.rms_norm_eps);
    return out;
  };
  if (exec.recompute == Recompute::attention || exec.recompute == Recompute::moe) {
    const bool first = exec.recompute == Recompute::attention;
    return {{.layer = layer,
             .first_of_layer = true,
             .recompute = first,
             .router = nullptr,
             .forward = [attention](const std::vector<Tensor>& in,
                                    const Replay&) { return only(attention(in)); }},
            {.layer = layer,
             .first_of_layer = false,
             .recompute = !first && router,
             .router = router,
             .forward = [ffn](const std::vector<Tensor>& in, const Replay& replay) {
               return ffn(in[0], replay);
             }}};
  }
  return {{.layer = layer,
           .first_of_layer = true,
           .recompute = exec.recompute == Recompute::block && layer % exec.recompute_every == 0,
           .router = router,
           .forward = [attention, ffn](const std::vector<Tensor>& in, const Replay& replay) {
             return ffn(attention(in), replay);
           }}};
}

Piece final_norm_piece(const Model& model, const PassContext& pass) {
  const UnitParams& p = model.unit(model.table().head_unit());
  Piece piece;
  piece.forward = [&pass, &p](const std::vector<Tensor>& in, const Replay&) {
    return only(rms_norm(pass.shared->ops, in[0], p[Role::final_norm], pass.shared->config.rms_norm_eps));
  };
  return piece;
}

}  // namespace dsv3
