#include "dsv3/ops/token_logprob.h"

#include "dsv3/ops/linear.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kIgnored = -100;

struct Head {
  OpsOptions ops;
  Param* weight;
  VocabFunction extra;
};

Tensor chunk_logits(const Head& head, const Tensor& hidden_CH) {
  at::NoGradGuard no_grad;
  return linear(head.ops, hidden_CH, *head.weight).to(at_least_fp32(hidden_CH.scalar_type()));
}

struct TokenLogprobFunction : torch::autograd::Function<TokenLogprobFunction> {
  static tensor_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& targets,
                             const std::shared_ptr<Head>& head) {
    const int64_t T = hidden.size(0), chunk = logprob_chunk(head->weight->data.size(0));
    Tensor logp = at::zeros({T}, hidden.options().dtype(at_least_fp32(hidden.scalar_type())));
    Tensor log_sum = at::empty_like(logp), extra = head->extra ? at::empty_like(logp) : Tensor();
    for (int64_t first = 0; first < T; first += chunk) {
      const int64_t C = std::min(chunk, T - first);
      const Tensor logits = chunk_logits(*head, hidden.narrow(0, first, C));
      const Tensor target = targets.narrow(0, first, C), valid = target.ne(kIgnored);
      // libtorch has no meta kernel for logsumexp.
      const Tensor sum = logits.is_meta() ? logits.sum(-1) : logits.logsumexp(-1);
      log_sum.narrow(0, first, C).copy_(sum);
      const Tensor chosen = logits.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1);
      logp.narrow(0, first, C).copy_((chosen - sum).masked_fill(valid.bitwise_not(), 0));
      if (head->extra) extra.narrow(0, first, C).copy_(head->extra(logits, first));
    }
    ctx->save_for_backward({hidden, targets, log_sum});
    ctx->saved_data["head"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(head));
    if (head->extra) return {logp, extra};
    return {logp};
  }

  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &hidden = saved[0], &targets = saved[1], &log_sum = saved[2];
    const auto head = static_cast<Holder*>(ctx->saved_data["head"].toCapsule().get())->head;
    const int64_t T = hidden.size(0), chunk = logprob_chunk(head->weight->data.size(0));
    Tensor dhidden = at::empty_like(hidden);
    for (int64_t first = 0; first < T; first += chunk) {
      const int64_t C = std::min(chunk, T - first);
      const Tensor x = hidden.narrow(0, first, C), target = targets.narrow(0, first, C);
      const Tensor logits = chunk_logits(*head, x);
      Tensor dlogits;
      if (grads.size() > 1 && grads[1].defined())
        dlogits = extra_grad(*head, logits, first, grads[1].narrow(0, first, C));
      if (grads[0].defined()) {
        const Tensor dlogp = grads[0].narrow(0, first, C).masked_fill(target.eq(kIgnored), 0).unsqueeze(1);
        // d logp / d logits = onehot(target) − softmax
        Tensor d = (logits - log_sum.narrow(0, first, C).unsqueeze(1)).exp_().mul_(dlogp.neg());
        d.scatter_add_(1, target.clamp_min(0).unsqueeze(1), dlogp);
        dlogits = dlogits.defined() ? dlogits.add_(d) : d;
      }
      if (!dlogits.defined()) return {Tensor(), {}, {}};
      dlogits = dlogits.to(hidden.scalar_type());
      if (head->weight->grad.defined()) add_weight_grad(head->ops, *head->weight, dlogits, x);
      dhidden.narrow(0, first, C).copy_(matmul_by_weight(head->ops, dlogits, *head->weight));
    }
    return {dhidden, {}, {}};
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<Head> value) : head(std::move(value)) {}
    std::shared_ptr<Head> head;
  };
  static Tensor extra_grad(const Head& head, const Tensor& logits, int64_t first, const Tensor& dextra) {
    at::AutoGradMode grad_mode(true);
    const Tensor leaf = logits.detach().requires_grad_(true);
    head.extra(leaf, first).backward(dextra);
    return leaf.grad();
  }
};

}  // namespace

int64_t logprob_chunk(int64_t vocab_size) { return std::max<int64_t>(64, (int64_t{8} << 20) / vocab_size); }

TokenLogprob token_logprob(const OpsOptions& ops, const Tensor& hidden_TH, Param& head,
                           const Tensor& targets_T, const VocabFunction& extra) {
  check_in_graph("token_logprob", hidden_TH, head);
  auto out =
      TokenLogprobFunction::apply(hidden_TH, targets_T, std::make_shared<Head>(Head{ops, &head, extra}));
  return {out[0], out.size() > 1 ? out[1] : Tensor()};
}

}  // namespace dsv3
