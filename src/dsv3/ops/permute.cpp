#include "dsv3/ops/permute.h"

#include "dsv3/ops/select_rows.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// out[t] = sum over k of rows[place[t · K + k]], in that order.
template <class T>
void sum_rows(const T* rows, const int64_t* place, T* out, int64_t begin, int64_t end, int64_t top_k,
              int64_t width) {
  using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
  std::vector<Sum> sum(width);
  for (int64_t t = begin; t < end; ++t) {
    const T* first = rows + place[t * top_k] * width;
    for (int64_t i = 0; i < width; ++i) sum[i] = static_cast<Sum>(first[i]);
    for (int64_t k = 1; k < top_k; ++k) {
      const T* row = rows + place[t * top_k + k] * width;
      for (int64_t i = 0; i < width; ++i) sum[i] += static_cast<Sum>(row[i]);
    }
    for (int64_t i = 0; i < width; ++i) out[t * width + i] = static_cast<T>(sum[i]);
  }
}

Tensor gather_rows(const Tensor& x_TH, const Tensor& order_R, int64_t top_k) {
  return select_rows(x_TH, order_R.div(top_k, "floor"));
}

Tensor reduce_rows(bool fast, const Tensor& rows_RH, const Tensor& place_TK, int64_t top_k) {
  const int64_t T = place_TK.size(0) / top_k, H = rows_RH.size(1);
  if (!fast) {
    const Tensor gathered = select_rows(rows_RH, place_TK).view({T, top_k, H});
    Tensor sum = gathered.select(1, 0).to(at_least_fp32(rows_RH.scalar_type()));
    for (int64_t k = 1; k < top_k; ++k) sum = sum + gathered.select(1, k);
    return sum.to(rows_RH.scalar_type());
  }
  const Tensor rows = rows_RH.contiguous();
  Tensor out = at::empty({T, H}, rows.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, rows.scalar_type(), "reduce_rows", [&] {
    at::parallel_for(0, T, 16, [&](int64_t begin, int64_t end) {
      sum_rows<scalar_t>(rows.const_data_ptr<scalar_t>(), place_TK.const_data_ptr<int64_t>(),
                         out.mutable_data_ptr<scalar_t>(), begin, end, top_k, H);
    });
  });
  return out;
}

// Each of the two is the other's backward.
struct PermuteFunction : torch::autograd::Function<PermuteFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x_TH, const Permutation& permutation, bool fast) {
    ctx->save_for_backward({permutation.place_TK});
    ctx->saved_data["top_k"] = permutation.top_k;
    ctx->saved_data["fast"] = fast;
    return gather_rows(x_TH, permutation.order_R, permutation.top_k);
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    return {reduce_rows(ctx->saved_data["fast"].toBool(), grads[0], ctx->get_saved_variables()[0],
                        ctx->saved_data["top_k"].toInt()),
            {},
            {}};
  }
};

struct UnpermuteFunction : torch::autograd::Function<UnpermuteFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rows_RH, const Permutation& permutation,
                        bool fast) {
    ctx->save_for_backward({permutation.order_R});
    ctx->saved_data["top_k"] = permutation.top_k;
    return reduce_rows(fast, rows_RH, permutation.place_TK, permutation.top_k);
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    return {gather_rows(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["top_k"].toInt()), {}, {}};
  }
};

struct PermuteWeightsFunction : torch::autograd::Function<PermuteWeightsFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& weight_TK, const Permutation& permutation) {
    ctx->save_for_backward({permutation.place_TK});
    ctx->saved_data["top_k"] = permutation.top_k;
    return select_rows(weight_TK.reshape({-1}), permutation.order_R);
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& grads) {
    return {select_rows(grads[0], ctx->get_saved_variables()[0]).view({-1, ctx->saved_data["top_k"].toInt()}),
            {}};
  }
};

}  // namespace

Permutation permutation_of(const Tensor& ids_TK, int64_t experts) {
  at::NoGradGuard no_grad;
  Permutation permutation;
  permutation.top_k = ids_TK.size(1);
  const Tensor flat = ids_TK.reshape({-1});
  // Sorting small integers: the narrower the keys the faster.
  const Tensor keys = experts <= 255 ? flat.to(at::kByte) : flat;
  permutation.order_R = std::get<1>(at::sort(keys, /*stable=*/true, 0, /*descending=*/false));
  permutation.place_TK = at::empty_like(flat);
  permutation.place_TK.scatter_(0, permutation.order_R, at::arange(flat.size(0), flat.options()));
  return permutation;
}

Tensor permute(const OpsOptions& ops, const Tensor& x_TH, const Permutation& permutation) {
  return PermuteFunction::apply(x_TH, permutation, ops.fast_on(x_TH));
}

Tensor unpermute(const OpsOptions& ops, const Tensor& rows_RH, const Permutation& permutation) {
  return UnpermuteFunction::apply(rows_RH, permutation, ops.fast_on(rows_RH));
}

Tensor permute_weights(const Tensor& weight_TK, const Permutation& permutation) {
  return PermuteWeightsFunction::apply(weight_TK, permutation);
}

}  // namespace dsv3
