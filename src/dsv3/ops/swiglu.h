#pragma once
// silu(gate) · up, arXiv 2002.05202.

#include "dsv3/ops/options.h"

namespace dsv3 {

// gate, up: [..., I] of one dtype. Saves its two inputs and recomputes silu in backward.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace dsv3
