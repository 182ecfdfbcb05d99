#include "dsv3/ops/embedding.h"

#include "dsv3/ops/select_rows.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

at::Tensor embedding(const at::Tensor& ids_BS, const Param& w) {
  return select_rows(w.data, ids_BS.reshape({-1})).view({ids_BS.size(0), ids_BS.size(1), w.data.size(1)});
}

void embedding_backward(const at::Tensor& ids_BS, const at::Tensor& dy_BSH, Param& w,
                        std::optional<int64_t> padding_id) {
  if (!w.grad.defined()) return;
  at::NoGradGuard no_grad;
  const at::Tensor ids = ids_BS.reshape({-1});
  at::Tensor dy = dy_BSH.reshape({-1, w.grad.size(1)}).to(w.grad.scalar_type());
  if (padding_id) dy = dy.masked_fill(ids.eq(*padding_id).unsqueeze(1), 0);
  w.grad.index_add_(0, ids, dy);
}

}  // namespace dsv3
