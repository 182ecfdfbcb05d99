#include "dsv3/ops/select_rows.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

at::Tensor select_rows(const at::Tensor& x, const at::Tensor& rows_R) {
  at::NoGradGuard no_grad;
  if (!x.is_meta()) return x.index_select(0, rows_R);
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = rows_R.size(0);
  return at::empty(shape, x.options());
}

}  // namespace dsv3
