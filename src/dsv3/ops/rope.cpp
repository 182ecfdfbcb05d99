#include "dsv3/ops/rope.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

at::Tensor rope(const at::Tensor& x_BSNR, const RopeTables& tables) {
  const at::Tensor even = x_BSNR.slice(-1, 0, std::nullopt, 2), odd = x_BSNR.slice(-1, 1, std::nullopt, 2);
  const at::Tensor cos = tables.cos.unsqueeze(2), sin = tables.sin.unsqueeze(2);  // [B, S, 1, P]
  return at::cat({even * cos - odd * sin, odd * cos + even * sin}, -1).to(x_BSNR.scalar_type());
}

}  // namespace dsv3
