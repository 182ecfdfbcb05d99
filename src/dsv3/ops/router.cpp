#include "dsv3/ops/router.h"

#include "dsv3/ops/linear.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

// Indices of the k largest along the last dim; a stable sort, because topk promises nothing about ties.
Tensor top_indices(const Tensor& x, int64_t k) {
  return std::get<1>(at::sort(x, /*stable=*/true, /*dim=*/-1, /*descending=*/true)).narrow(-1, 0, k);
}

}  // namespace

Tensor select_experts(const Tensor& scores_TE, const Tensor& bias_E, const RouterOptions& options) {
  at::NoGradGuard no_grad;
  const int64_t T = scores_TE.size(0), E = scores_TE.size(1), G = options.groups;
  Tensor choice_TE = scores_TE + bias_E.to(scores_TE.scalar_type());
  if (G > 1) {
    const Tensor group_TG = std::get<0>(choice_TE.view({T, G, E / G}).topk(2, -1)).sum(-1);
    Tensor dropped_TG = at::ones({T, G}, scores_TE.options().dtype(at::kBool));
    dropped_TG.scatter_(1, top_indices(group_TG, options.kept_groups), false);
    choice_TE = choice_TE.view({T, G, E / G})
                    .masked_fill(dropped_TG.unsqueeze(-1), -std::numeric_limits<double>::infinity())
                    .view({T, E});
  }
  return top_indices(choice_TE, options.top_k).contiguous();
}

Routing router(const Tensor& x_TH, Param& w_EH, const Tensor& bias_E, const RouterOptions& options,
               const Tensor& replay_TK) {
  Routing routing;
  routing.scores_TE = linear_fp32(x_TH, w_EH).sigmoid();
  routing.ids_TK =
      replay_TK.defined() ? replay_TK : select_experts(routing.scores_TE.detach(), bias_E, options);
  Tensor weight = routing.scores_TE.gather(1, routing.ids_TK);
  if (options.normalise) weight = weight / (weight.sum(-1, true) + 1e-20);
  routing.weight_TK = weight * options.scale;
  return routing;
}

Tensor count_tokens(const Tensor& ids_TK, const Tensor& valid_T, int64_t experts) {
  at::NoGradGuard no_grad;
  const Tensor weight =
      valid_T.defined() ? valid_T.to(at::kLong).unsqueeze(1).expand_as(ids_TK) : at::ones_like(ids_TK);
  Tensor count_E = at::zeros({experts}, ids_TK.options());
  return count_E.scatter_add_(0, ids_TK.reshape({-1}), weight.reshape({-1}));
}

}  // namespace dsv3
