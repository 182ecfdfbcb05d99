#include "dsv3/ops/balance_loss.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

at::Tensor balance_loss(const Routing& routing, const at::Tensor& valid_T, int64_t sequences,
                        const BalanceOptions& options) {
  using at::Tensor;
  const int64_t T = routing.ids_TK.size(0), K = routing.ids_TK.size(1), E = routing.scores_TE.size(1);
  const int64_t B = options.kind == BalanceKind::sequence ? sequences : 1;
  const int64_t S = T / std::max<int64_t>(B, 1);  // explicit: no -1 is inferred from 0 elements
  const Tensor& scores = routing.scores_TE;
  const Tensor valid = valid_T.defined() ? valid_T.to(scores.scalar_type()).view({B, S, 1})
                                         : at::ones({B, S, 1}, scores.options());
  const Tensor tokens_B1 = valid.sum(1).clamp_min(1);

  Tensor count_BE;
  {
    at::NoGradGuard no_grad;
    const Tensor chosen = options.indicator == BalanceIndicator::unbiased
                              ? select_experts(scores, at::zeros({E}, scores.options()), {.top_k = K})
                              : routing.ids_TK;
    Tensor hits_TE = at::zeros({T, E}, scores.options()).scatter_(1, chosen, 1);
    count_BE = (hits_TE.view({B, S, E}) * valid).sum(1);
  }
  const Tensor f_BE = count_BE * (static_cast<double>(E) / static_cast<double>(K)) / tokens_B1;
  const Tensor share_TE = scores / scores.sum(-1, true);
  const Tensor P_BE = (share_TE.view({B, S, E}) * valid).sum(1) / tokens_B1;
  const double repeat = options.kind == BalanceKind::batch ? static_cast<double>(sequences) : 1.0;
  return (f_BE * P_BE).sum() * (options.alpha * repeat);
}

}  // namespace dsv3
