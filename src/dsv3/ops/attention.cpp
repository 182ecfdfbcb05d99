#include "dsv3/ops/attention.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

// Finite, so that a row without any key is uniform and not NaN, in the forward pass and in the backward one.
double lowest(at::ScalarType dtype) {
  return dtype == at::kDouble ? std::numeric_limits<double>::lowest() : std::numeric_limits<float>::lowest();
}

Tensor causal_mask(int64_t rows, const at::TensorOptions& options) {
  return at::ones({rows, rows}, options.dtype(at::kBool)).tril_();
}

Tensor math_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask,
                      double scale) {
  const auto dtype = at_least_fp32(q.scalar_type());
  const Tensor allowed =
      mask.allowed_B1SS.defined() ? mask.allowed_B1SS : causal_mask(q.size(2), q.options());
  const Tensor scores = q.matmul(k.transpose(-1, -2)).mul(scale).to(dtype);
  const Tensor weights = scores.masked_fill(allowed.bitwise_not(), lowest(dtype)).softmax(-1);
  return weights.to(q.scalar_type()).matmul(v);
}

Tensor padded_to(const Tensor& x, int64_t width) {
  return x.size(-1) == width ? x : at::constant_pad_nd(x, {0, width - x.size(-1)});
}

}  // namespace

AttentionMask AttentionMask::create(const Tensor& padding_BS, const Tensor& documents_BS) {
  AttentionMask mask;
  const Tensor& shape = padding_BS.defined() ? padding_BS : documents_BS;
  if (!shape.defined()) return mask;
  const int64_t S = shape.size(1);
  mask.allowed_B1SS = causal_mask(S, shape.options()).expand({shape.size(0), 1, S, S});
  if (padding_BS.defined()) mask.allowed_B1SS = mask.allowed_B1SS.bitwise_and(padding_BS.view({-1, 1, 1, S}));
  if (documents_BS.defined())
    mask.allowed_B1SS =
        mask.allowed_B1SS.bitwise_and(documents_BS.view({-1, 1, S, 1}).eq(documents_BS.view({-1, 1, 1, S})));
  return mask;
}

Tensor attention(const OpsOptions& ops, const Tensor& q_nope, const Tensor& q_rope, const Tensor& kv,
                 const Tensor& k_rope, const AttentionMask& mask, const AttentionDims& dims) {
  const int64_t N = q_nope.size(2);
  // [B, N, S, ·]
  const Tensor q = at::cat({q_nope, q_rope}, -1).transpose(1, 2);
  const Tensor k = at::cat({kv.narrow(-1, 0, dims.nope), k_rope.expand({-1, -1, N, -1})}, -1).transpose(1, 2);
  const Tensor v = kv.narrow(-1, dims.nope, dims.v).transpose(1, 2);
  if (ops.attention == AttentionKind::math || kv.is_meta())
    return math_attention(q, k, v, mask, dims.scale).transpose(1, 2);
  // Flash attention asks for equal widths of keys and values: the padding is zero and is cut off again.
  const int64_t width = std::max(dims.nope + dims.rope, dims.v);
  const Tensor y = at::scaled_dot_product_attention(
      padded_to(q, width), padded_to(k, width), padded_to(v, width),
      mask.allowed_B1SS.defined() ? std::optional<Tensor>(mask.allowed_B1SS) : std::nullopt, 0.0,
      !mask.allowed_B1SS.defined(), dims.scale);
  return y.narrow(-1, 0, dims.v).transpose(1, 2);
}

Tensor latent_attention(const Tensor& q_nope, const Tensor& q_rope, const Tensor& latent_BTC,
                        const Tensor& k_rope_BTR, const Tensor& kv_b, const Tensor& allowed,
                        const AttentionDims& dims) {
  const auto dtype = at_least_fp32(q_nope.scalar_type());
  const int64_t B = q_nope.size(0), Q = q_nope.size(1), N = q_nope.size(2), C = latent_BTC.size(2);
  const Tensor w = kv_b.view({N, dims.nope + dims.v, C});
  const Tensor w_k = w.narrow(1, 0, dims.nope), w_v = w.narrow(1, dims.nope, dims.v);  // [N, ·, C]
  // All heads read the same keys: heads and queries are the rows of one product, nothing is repeated a head.
  auto rows = [&](const Tensor& x_BNQD) { return x_BNQD.reshape({B, N * Q, -1}); };
  const Tensor q_BRC = rows(q_nope.transpose(1, 2).matmul(w_k));
  const Tensor scores =
      (q_BRC.bmm(latent_BTC.transpose(1, 2)) + rows(q_rope.transpose(1, 2)).bmm(k_rope_BTR.transpose(1, 2)))
          .mul(dims.scale)
          .to(dtype)
          .view({B, N, Q, -1});
  const Tensor weights = scores.masked_fill(allowed.bitwise_not(), lowest(dtype)).softmax(-1);
  const Tensor y_BNQC = rows(weights.to(q_nope.scalar_type())).bmm(latent_BTC).view({B, N, Q, C});
  return y_BNQC.matmul(w_v.transpose(-1, -2)).transpose(1, 2);
}

}  // namespace dsv3
