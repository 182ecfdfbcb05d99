#pragma once
// bf16 products on the CPU with fp32 sums, and single-threaded GEMM calls for use inside a parallel region.
//
// MKL's bf16 kernels where the processor has AMX; elsewhere operands are widened to fp32 and multiplied by
// sgemm, which is as fast or faster there (docs/design.md, table of measurements).

#include <ATen/core/Tensor.h>

namespace dsv3::cpu {

bool has_amx_bf16();

// bf16 [M, K] × bf16 [N, K]ᵀ → bf16 [M, N].
at::Tensor matmul_nt(const at::Tensor& a, const at::Tensor& b);
// bf16 [M, K] × bf16 [K, N] → bf16 [M, N].
at::Tensor matmul_nn(const at::Tensor& a, const at::Tensor& b);
// c fp32 [M, N] += bf16 [K, M]ᵀ × bf16 [K, N].
void add_matmul_tn(at::Tensor& c, const at::Tensor& a, const at::Tensor& b);

// Row-major c = op(a) op(b) + beta c, on raw memory; k = 0 gives beta c. lda, ldb, ldc: row strides in
// elements.
struct GemmShape {
  bool trans_a = false, trans_b = false;
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
};
void gemm(const GemmShape& shape, const float* a, const float* b, float beta, float* c);
void gemm(const GemmShape& shape, const double* a, const double* b, double beta, double* c);
// Needs AMX.
void gemm(const GemmShape& shape, const at::BFloat16* a, const at::BFloat16* b, float beta, float* c);

}  // namespace dsv3::cpu
