#include "dsv3/parallel/all_to_all.h"

#include <numeric>

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

// Rows of the first dim between the ranks of a group, at most one collective under way.
struct Exchange {
  Group* group;
  PlanPtr plan;
  bool back = false;  // false: rows to their experts; true: from them
  Work work;
  at::Tensor result;

  void start(const at::Tensor& rows, bool reverse) {
    const SlotRows& send = reverse ? plan->recv : plan->send;
    const SlotRows& recv = reverse ? plan->send : plan->recv;
    std::vector<int64_t> shape = rows.sizes().vec();
    shape[0] = std::accumulate(recv.begin(), recv.end(), int64_t{0});
    result = at::empty(shape, rows.options());
    work = group->all_to_all(result, rows.contiguous(), recv, send, plan->unit);
  }
  at::Tensor finish() {
    work.wait();
    return std::move(result);
  }
};

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;
using ExchangePtr = std::shared_ptr<Exchange>;

struct Holder : torch::CustomClassHolder {
  explicit Holder(ExchangePtr p) : exchange(std::move(p)) {}
  ExchangePtr exchange;
};

void keep(AutogradContext* ctx, const ExchangePtr& exchange) {
  ctx->saved_data["exchange"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(exchange));
}
Exchange& kept(AutogradContext* ctx) {
  return *static_cast<Holder*>(ctx->saved_data["exchange"].toCapsule().get())->exchange;
}

// [Note: two functions for one exchange] Start and Finish are each other's backward: Finish's backward starts
// the exchange of gradients, Start's ends it. Autograd runs the node made last first, so what was computed
// between the two in forward also runs between them in backward, while rows travel.
struct StartFunction : torch::autograd::Function<StartFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rows, const ExchangePtr& exchange) {
    keep(ctx, exchange);
    exchange->start(rows, exchange->back);
    return exchange->result.detach();
  }
  // What arrives is a stand-in: the gradient itself is on its way since Finish's backward.
  static tensor_list backward(AutogradContext* ctx, const tensor_list&) { return {kept(ctx).finish(), {}}; }
};

struct FinishFunction : torch::autograd::Function<FinishFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rows, const ExchangePtr& exchange) {
    keep(ctx, exchange);
    exchange->finish();
    return rows.detach();
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    Exchange& exchange = kept(ctx);
    exchange.start(grads[0], !exchange.back);
    return {grads[0], {}};
  }
};

ExchangePtr exchange_of(Group& group, const PlanPtr& plan, bool back) {
  auto exchange = std::make_shared<Exchange>();
  exchange->group = &group;
  exchange->plan = plan;
  exchange->back = back;
  return exchange;
}

class AllToAllDispatch : public ExpertDispatch {
 public:
  AllToAllDispatch(Group& group, int64_t experts, CountSource counts)
      : group_(group), experts_(experts), local_(experts / group.size()), counts_(std::move(counts)) {}

  PlanPtr plan(const Tensor& ids_TK, const std::string& unit) const override {
    const int64_t ranks = group_.size();
    // An expert's place in the order of the buffers: (local expert, rank).
    const Tensor key_TK = ids_TK.remainder(local_).mul_(ranks).add_(ids_TK.div(local_, "floor"));
    auto plan = std::make_shared<DispatchPlan>();
    plan->unit = unit;
    plan->permutation = permutation_of(key_TK, experts_);
    plan->send = counts_(key_TK, experts_);

    // [rank, local expert] travels as one row a rank.
    const Tensor mine =
        at::tensor(plan->send, at::kLong).view({local_, ranks}).t().contiguous().to(ids_TK.device());
    const Tensor theirs = at::empty_like(mine);
    const SlotRows one_row(static_cast<size_t>(ranks), 1);
    group_.all_to_all(theirs, mine, one_row, one_row, unit).wait();
    const Tensor recv = theirs.cpu().t().contiguous();
    const int64_t* rows = recv.const_data_ptr<int64_t>();
    plan->recv.assign(rows, rows + experts_);
    plan->rows_e.resize(static_cast<size_t>(local_), 0);
    for (int64_t i = 0; i < experts_; ++i) plan->rows_e[i / ranks] += plan->recv[i];
    return plan;
  }

  SentRows send(const OpsOptions& ops, const Tensor& x_TH, const Tensor& weight_TK,
                PlanPtr plan) const override {
    SentRows sent{.plan = plan,
                  .x_RH = permute(ops, x_TH, plan->permutation),
                  .weight_R = permute_weights(weight_TK, plan->permutation),
                  .x_exchange = exchange_of(group_, plan, false),
                  .weight_exchange = exchange_of(group_, plan, false)};
    sent.x_RH = StartFunction::apply(sent.x_RH, sent.x_exchange);
    sent.weight_R = StartFunction::apply(sent.weight_R, sent.weight_exchange);
    return sent;
  }

  ExpertRows receive(SentRows sent) const override {
    return {FinishFunction::apply(sent.x_RH, sent.x_exchange),
            FinishFunction::apply(sent.weight_R, sent.weight_exchange)};
  }

  Tensor combine(const OpsOptions& ops, const Tensor& y_RH, const PlanPtr& plan) const override {
    const ExchangePtr exchange = exchange_of(group_, plan, true);
    const Tensor back = FinishFunction::apply(StartFunction::apply(y_RH, exchange), exchange);
    return unpermute(ops, back, plan->permutation);
  }

 private:
  Group& group_;
  int64_t experts_, local_;
  CountSource counts_;
};

}  // namespace

std::unique_ptr<ExpertDispatch> all_to_all_dispatch(Group& expert_group, int64_t experts,
                                                    CountSource counts) {
  return std::make_unique<AllToAllDispatch>(expert_group, experts, std::move(counts));
}

}  // namespace dsv3
