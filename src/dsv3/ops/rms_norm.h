#pragma once
// y = w · x / sqrt(mean(x²) + eps), arXiv 1910.07467.

#include "dsv3/ops/options.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

// x: [..., H], w: [H]. The normalisation is computed at least in fp32 and rounded to x's dtype once, before
// the product with w on the aten back end (as transformers does), after it on the fast one. Backward: dx by
// autograd; dw is added to w.grad.
at::Tensor rms_norm(const OpsOptions& ops, const at::Tensor& x, Param& w, double eps);

}  // namespace dsv3
