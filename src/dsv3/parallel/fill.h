#pragma once
// Numbers from outside into tensors, a piece at a time.

#include <algorithm>
#include <span>
#include <vector>

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

// Fills target (fp32, fp64 or bf16, any device) from fn(begin, span): elements [begin, begin + span.size())
// as double for fp64, else as float. Pieces of 2^20 elements.
template <class Fn>
void fill_pieces(const at::Tensor& target, Fn fn) {
  constexpr int64_t kPiece = 1 << 20;
  const at::Tensor flat = target.view({-1});
  std::vector<float> narrow;
  std::vector<double> wide;
  for (int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
    const int64_t count = std::min(kPiece, flat.numel() - begin);
    at::Tensor piece = flat.narrow(0, begin, count);
    if (target.scalar_type() == at::kDouble) {
      wide.resize(static_cast<size_t>(count));
      fn(begin, std::span<double>(wide));
      piece.copy_(at::from_blob(wide.data(), {count}, at::kDouble));
    } else {
      narrow.resize(static_cast<size_t>(count));
      fn(begin, std::span<float>(narrow));
      piece.copy_(at::from_blob(narrow.data(), {count}, at::kFloat));
    }
  }
}

}  // namespace dsv3
