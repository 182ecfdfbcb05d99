#include "dsv3/ops/cpu/grouped_gemm.h"

#include <atomic>
#include <cmath>
#include <numeric>

#include "dsv3/ops/cpu/gemm.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3::cpu {
namespace {

template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Runs fn(e, first row, rows) for every expert with rows, largest first, on whichever thread is free. Each
// expert is one single-threaded computation, so who runs it changes no bit. [Note: MKL inside a parallel
// region is single-threaded]
template <class Fn>
void each_expert(const std::vector<int64_t>& rows_e, Fn fn) {
  const int64_t experts = static_cast<int64_t>(rows_e.size());
  std::vector<int64_t> begin(experts + 1, 0), order(experts);
  std::partial_sum(rows_e.begin(), rows_e.end(), begin.begin() + 1);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rows_e[a] > rows_e[b]; });
  std::atomic<int64_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < experts; i = next++) {
      const int64_t e = order[i];
      if (rows_e[e] > 0) fn(e, begin[e], rows_e[e]);
    }
  });
}

// A thread's buffers for widened operands; grows, never shrinks while the thread lives.
float* widen(const at::BFloat16* x, int64_t count, int slot) {
  thread_local std::vector<float> buffers[3];
  auto& buffer = buffers[slot];
  if (static_cast<int64_t>(buffer.size()) < count) buffer.resize(count);
  float* out = buffer.data();
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(x[i]);
  return out;
}

template <class T>
void matmul_one(const GemmShape& shape, const T* x, const T* w, T* y) {
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    thread_local std::vector<float> wide;
    const int64_t count = shape.m * shape.n;
    if (static_cast<int64_t>(wide.size()) < count) wide.resize(count);
    if (has_amx_bf16()) {
      gemm(shape, x, w, 0.f, wide.data());
    } else {
      gemm(shape, widen(x, shape.m * shape.k, 0), widen(w, shape.n * shape.k, 1), 0.f, wide.data());
    }
    for (int64_t i = 0; i < count; ++i) y[i] = static_cast<at::BFloat16>(wide[i]);
  } else {
    gemm(shape, x, w, T(0), y);
  }
}

template <class T>
void weight_grad_one(const GemmShape& shape, const T* dy, const T* x, Sum<T>* grad) {
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    if (has_amx_bf16()) {
      gemm(shape, dy, x, 1.f, grad);
    } else {
      gemm(shape, widen(dy, shape.m * shape.k, 0), widen(x, shape.n * shape.k, 1), 1.f, grad);
    }
  } else {
    gemm(shape, dy, x, T(1), grad);
  }
}

constexpr int64_t kRowGrain = 32;

}  // namespace

at::Tensor grouped_matmul(const at::Tensor& x, const at::Tensor& w, const std::vector<int64_t>& rows_e,
                          bool transposed) {
  const int64_t in = x.size(1), out = transposed ? w.size(1) : w.size(2);
  at::Tensor y = at::empty({x.size(0), out}, x.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x.scalar_type(), "grouped_matmul", [&] {
    const auto* x_data = x.const_data_ptr<scalar_t>();
    const auto* w_data = w.const_data_ptr<scalar_t>();
    auto* y_data = y.mutable_data_ptr<scalar_t>();
    each_expert(rows_e, [&](int64_t e, int64_t begin, int64_t rows) {
      matmul_one<scalar_t>({.trans_b = transposed,
                            .m = rows,
                            .n = out,
                            .k = in,
                            .lda = in,
                            .ldb = transposed ? in : out,
                            .ldc = out},
                           x_data + begin * in, w_data + e * in * out, y_data + begin * out);
    });
  });
  return y;
}

void add_grouped_weight_grad(at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x,
                             const std::vector<int64_t>& rows_e) {
  const int64_t out = dy.size(1), in = x.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x.scalar_type(), "add_grouped_weight_grad", [&] {
    const auto* dy_data = dy.const_data_ptr<scalar_t>();
    const auto* x_data = x.const_data_ptr<scalar_t>();
    auto* grad_data = grad.mutable_data_ptr<Sum<scalar_t>>();
    each_expert(rows_e, [&](int64_t e, int64_t begin, int64_t rows) {
      weight_grad_one<scalar_t>(
          {.trans_a = true, .m = out, .n = in, .k = rows, .lda = out, .ldb = in, .ldc = in},
          dy_data + begin * out, x_data + begin * in, grad_data + e * out * in);
    });
  });
}

at::Tensor swiglu_rows(const at::Tensor& h, const at::Tensor& weight_R) {
  const int64_t R = h.size(0), I = h.size(1) / 2;
  at::Tensor y = at::empty({R, I}, h.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, h.scalar_type(), "swiglu_rows", [&] {
    using S = Sum<scalar_t>;
    const auto* h_data = h.const_data_ptr<scalar_t>();
    const auto* w_data = weight_R.const_data_ptr<S>();
    auto* y_data = y.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, R, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const auto *gate = h_data + r * 2 * I, *up = gate + I;
        for (int64_t i = 0; i < I; ++i) {
          const S g = static_cast<S>(gate[i]);
          y_data[r * I + i] =
              static_cast<scalar_t>(w_data[r] * (g / (S(1) + std::exp(-g))) * static_cast<S>(up[i]));
        }
      }
    });
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> swiglu_rows_backward(const at::Tensor& h, const at::Tensor& weight_R,
                                                        const at::Tensor& dact) {
  const int64_t R = h.size(0), I = h.size(1) / 2;
  at::Tensor dh = at::empty_like(h), dweight = at::empty_like(weight_R);
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, h.scalar_type(), "swiglu_rows_backward", [&] {
    using S = Sum<scalar_t>;
    const auto* h_data = h.const_data_ptr<scalar_t>();
    const auto* d_data = dact.const_data_ptr<scalar_t>();
    const auto* w_data = weight_R.const_data_ptr<S>();
    auto* dh_data = dh.mutable_data_ptr<scalar_t>();
    auto* dw_data = dweight.mutable_data_ptr<S>();
    at::parallel_for(0, R, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const auto *gate = h_data + r * 2 * I, *up = gate + I, *d = d_data + r * I;
        auto *dgate = dh_data + r * 2 * I, *dup = dgate + I;
        const S w = w_data[r];
        S dot = 0;
        for (int64_t i = 0; i < I; ++i) {
          const S g = static_cast<S>(gate[i]), u = static_cast<S>(up[i]), dy = static_cast<S>(d[i]);
          const S sigmoid = S(1) / (S(1) + std::exp(-g)), silu = g * sigmoid;
          dot += dy * silu * u;
          dup[i] = static_cast<scalar_t>(w * dy * silu);
          dgate[i] = static_cast<scalar_t>(w * dy * u * sigmoid * (S(1) + g * (S(1) - sigmoid)));
        }
        dw_data[r] = dot;
      }
    });
  });
  return {dh, dweight};
}

}  // namespace dsv3::cpu
