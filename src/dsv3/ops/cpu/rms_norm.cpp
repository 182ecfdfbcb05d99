#include "dsv3/ops/cpu/rms_norm.h"

#include <cmath>

#include "dsv3/ops/torch_pch.h"

namespace dsv3::cpu {
namespace {

// Rows a task takes at a time. A constant, so that partial sums of dw do not depend on the thread count.
constexpr int64_t kRows = 64;

template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
void forward_rows(const T* x, const T* w, T* y, Sum<T>* scale, int64_t begin, int64_t end, int64_t width,
                  double eps) {
  using S = Sum<T>;
  for (int64_t r = begin; r < end; ++r) {
    const T* row = x + r * width;
    S sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += static_cast<S>(row[i]) * static_cast<S>(row[i]);
    const S inverse = S(1) / std::sqrt(sum / static_cast<S>(width) + static_cast<S>(eps));
    scale[r] = inverse;
    for (int64_t i = 0; i < width; ++i)
      y[r * width + i] = static_cast<T>(static_cast<S>(w[i]) * (static_cast<S>(row[i]) * inverse));
  }
}

template <class T>
void backward_rows(const T* x, const Sum<T>* scale, const T* w, const T* dy, T* dx, Sum<T>* dw, int64_t begin,
                   int64_t end, int64_t width) {
  using S = Sum<T>;
  for (int64_t r = begin; r < end; ++r) {
    const T *row = x + r * width, *drow = dy + r * width;
    const S inverse = scale[r];
    S dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i)
      dot += static_cast<S>(drow[i]) * static_cast<S>(w[i]) * static_cast<S>(row[i]);
    const S mean = dot * inverse / static_cast<S>(width);
    for (int64_t i = 0; i < width; ++i) {
      const S normal = static_cast<S>(row[i]) * inverse, d = static_cast<S>(drow[i]);
      dx[r * width + i] = static_cast<T>(inverse * (d * static_cast<S>(w[i]) - normal * mean));
      if (dw) dw[i] += d * normal;
    }
  }
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, const at::Tensor& w, double eps) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor y = at::empty_like(x);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = 1;
  at::Tensor scale =
      at::empty(shape, x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x.scalar_type(), "rms_norm", [&] {
    at::parallel_for(0, rows, kRows, [&](int64_t begin, int64_t end) {
      forward_rows<scalar_t>(x.const_data_ptr<scalar_t>(), w.const_data_ptr<scalar_t>(),
                             y.mutable_data_ptr<scalar_t>(), scale.mutable_data_ptr<Sum<scalar_t>>(), begin,
                             end, width, eps);
    });
  });
  return {y, scale};
}

at::Tensor rms_norm_backward(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& w,
                             const at::Tensor& dy, at::Tensor& w_grad) {
  const int64_t width = x.size(-1), rows = x.numel() / width, tasks = (rows + kRows - 1) / kRows;
  at::Tensor dx = at::empty_like(x);
  at::Tensor partial;
  if (w_grad.defined()) partial = at::zeros({tasks, width}, scale.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x.scalar_type(), "rms_norm_backward", [&] {
    using S = Sum<scalar_t>;
    S* sums = partial.defined() ? partial.mutable_data_ptr<S>() : nullptr;
    at::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task)
        backward_rows<scalar_t>(x.const_data_ptr<scalar_t>(), scale.const_data_ptr<S>(),
                                w.const_data_ptr<scalar_t>(), dy.const_data_ptr<scalar_t>(),
                                dx.mutable_data_ptr<scalar_t>(), sums ? sums + task * width : nullptr,
                                task * kRows, std::min(rows, (task + 1) * kRows), width);
    });
  });
  if (partial.defined()) w_grad.add_(partial.sum(0));
  return dx;
}

}  // namespace dsv3::cpu
