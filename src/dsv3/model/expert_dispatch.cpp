#include "dsv3/model/expert_dispatch.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

class LocalDispatch : public ExpertDispatch {
 public:
  LocalDispatch(int64_t experts, CountSource counts) : experts_(experts), counts_(std::move(counts)) {}

  Dispatched dispatch(const OpsOptions& ops, const at::Tensor& x_TH, const Routing& routing) const override {
    Dispatched out;
    out.handle.permutation = permutation_of(routing.ids_TK, experts_);
    out.rows_e = counts_(routing.ids_TK, experts_);
    out.x_RH = permute(ops, x_TH, out.handle.permutation);
    out.weight_R = permute_weights(routing.weight_TK, out.handle.permutation);
    return out;
  }

  at::Tensor combine(const OpsOptions& ops, const at::Tensor& y_RH,
                     const DispatchHandle& handle) const override {
    return unpermute(ops, y_RH, handle.permutation);
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
