#include "dsv3/ops/cpu/gemm.h"

#include <cpuid.h>

#include "dsv3/ops/torch_pch.h"

// Exported by libtorch_cpu, which holds MKL; the wheel ships no MKL headers.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*,
            const int*, const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*,
            const int*, const double*, const int*, const double*, double*, const int*);
void cblas_gemm_bf16bf16f32(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha,
                            const uint16_t* a, int lda, const uint16_t* b, int ldb, float beta, float* c,
                            int ldc);
}

namespace dsv3::cpu {
namespace {

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;

int blas_int(int64_t value) {
  TORCH_INTERNAL_ASSERT(value <= INT_MAX, "a GEMM dimension exceeds the BLAS integer: ", value);
  return static_cast<int>(value);
}

// BLAS is column-major: row-major c = a b is column-major cᵀ = bᵀ aᵀ.
template <class T, class Fn>
void call_blas(Fn fn, const GemmShape& s, const T* a, const T* b, T beta, T* c) {
  if (s.m == 0 || s.n == 0) return;
  const char ta = s.trans_a ? 'T' : 'N', tb = s.trans_b ? 'T' : 'N';
  const int m = blas_int(s.m), n = blas_int(s.n), k = blas_int(s.k);
  const int lda = blas_int(s.lda), ldb = blas_int(s.ldb), ldc = blas_int(s.ldc);
  const T one = 1;
  fn(&tb, &ta, &n, &m, &k, &one, b, &ldb, a, &lda, &beta, c, &ldc);
}

at::Tensor widened(const at::Tensor& x) { return x.to(at::kFloat); }

at::Tensor amx_product(const GemmShape& shape, const at::Tensor& a, const at::Tensor& b) {
  at::Tensor c = at::empty({shape.m, shape.n}, a.options().dtype(at::kFloat));
  gemm(shape, a.const_data_ptr<at::BFloat16>(), b.const_data_ptr<at::BFloat16>(), 0.f,
       c.mutable_data_ptr<float>());
  return c.to(at::kBFloat16);
}

}  // namespace

bool has_amx_bf16() {
  static const bool supported = [] {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & (1u << 22))) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return false;
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & (3u << 17)) == (3u << 17);  // the system saves tile state
  }();
  return supported;
}

void gemm(const GemmShape& shape, const float* a, const float* b, float beta, float* c) {
  call_blas(sgemm_, shape, a, b, beta, c);
}

void gemm(const GemmShape& shape, const double* a, const double* b, double beta, double* c) {
  call_blas(dgemm_, shape, a, b, beta, c);
}

void gemm(const GemmShape& s, const at::BFloat16* a, const at::BFloat16* b, float beta, float* c) {
  if (s.m == 0 || s.n == 0) return;
  cblas_gemm_bf16bf16f32(kRowMajor, s.trans_a ? kTrans : kNoTrans, s.trans_b ? kTrans : kNoTrans,
                         blas_int(s.m), blas_int(s.n), blas_int(s.k), 1.f,
                         reinterpret_cast<const uint16_t*>(a), blas_int(s.lda),
                         reinterpret_cast<const uint16_t*>(b), blas_int(s.ldb), beta, c, blas_int(s.ldc));
}

at::Tensor matmul_nt(const at::Tensor& a, const at::Tensor& b) {
  if (!has_amx_bf16() || a.numel() == 0) return widened(a).mm(widened(b).t()).to(at::kBFloat16);
  const at::Tensor x = a.contiguous(), w = b.contiguous();
  return amx_product({.trans_b = true,
                      .m = x.size(0),
                      .n = w.size(0),
                      .k = x.size(1),
                      .lda = x.size(1),
                      .ldb = w.size(1),
                      .ldc = w.size(0)},
                     x, w);
}

at::Tensor matmul_nn(const at::Tensor& a, const at::Tensor& b) {
  if (!has_amx_bf16() || a.numel() == 0) return widened(a).mm(widened(b)).to(at::kBFloat16);
  const at::Tensor x = a.contiguous(), w = b.contiguous();
  return amx_product(
      {.m = x.size(0), .n = w.size(1), .k = x.size(1), .lda = x.size(1), .ldb = w.size(1), .ldc = w.size(1)},
      x, w);
}

void add_matmul_tn(at::Tensor& c, const at::Tensor& a, const at::Tensor& b) {
  if (!has_amx_bf16()) {
    c.addmm_(widened(a).t(), widened(b));
    return;
  }
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  gemm({.trans_a = true,
        .m = x.size(1),
        .n = y.size(1),
        .k = x.size(0),
        .lda = x.size(1),
        .ldb = y.size(1),
        .ldc = c.size(1)},
       x.const_data_ptr<at::BFloat16>(), y.const_data_ptr<at::BFloat16>(), 1.f, c.mutable_data_ptr<float>());
}

}  // namespace dsv3::cpu
