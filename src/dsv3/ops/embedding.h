#pragma once
// The token embedding. Its backward is an explicit call: token ids carry no gradient, so autograd has nothing
// to walk.

#include <optional>

#include "dsv3/ops/param.h"

namespace dsv3 {

// ids_BS: int64 in [0, vocabulary); w: [V, H]. Returns [B, S, H], outside any graph.
at::Tensor embedding(const at::Tensor& ids_BS, const Param& w);

// w.grad[id] += dy; rows of padding_id get nothing (torch.nn.Embedding's padding_idx). dy: [B, S, H].
void embedding_backward(const at::Tensor& ids_BS, const at::Tensor& dy_BSH, Param& w,
                        std::optional<int64_t> padding_id);

}  // namespace dsv3
