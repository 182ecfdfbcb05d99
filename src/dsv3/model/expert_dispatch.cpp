#include "dsv3/model/expert_dispatch.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

class LocalDispatch : public ExpertDispatch {
 public:
  LocalDispatch(int64_t experts, CountSource counts) : experts_(experts), counts_(std::move(counts)) {}

  PlanPtr plan(const at::Tensor& ids_TK, const std::string& unit) const override {
    return std::make_shared<DispatchPlan>(DispatchPlan{.permutation = permutation_of(ids_TK, experts_),
                                                       .rows_e = counts_(ids_TK, experts_),
                                                       .send = {},
                                                       .recv = {},
                                                       .unit = unit});
  }

  SentRows send(const OpsOptions& ops, const at::Tensor& x_TH, const at::Tensor& weight_TK,
                PlanPtr plan) const override {
    const Permutation& permutation = plan->permutation;
    return {.plan = plan,
            .x_RH = permute(ops, x_TH, permutation),
            .weight_R = permute_weights(weight_TK, permutation),
            .x_exchange = nullptr,
            .weight_exchange = nullptr};
  }

  ExpertRows receive(SentRows sent) const override { return {sent.x_RH, sent.weight_R}; }

  at::Tensor combine(const OpsOptions& ops, const at::Tensor& y_RH, const PlanPtr& plan) const override {
    return unpermute(ops, y_RH, plan->permutation);
  }

 private:
  int64_t experts_;
  CountSource counts_;
};

}  // namespace

std::vector<int64_t> counts_on_host(const at::Tensor& ids_TK, int64_t experts) {
  const at::Tensor count_E = count_tokens(ids_TK, {}, experts).cpu();
  const int64_t* data = count_E.const_data_ptr<int64_t>();
  return {data, data + experts};
}

std::unique_ptr<ExpertDispatch> local_dispatch(int64_t experts, CountSource counts) {
  return std::make_unique<LocalDispatch>(experts, std::move(counts));
}

}  // namespace dsv3
