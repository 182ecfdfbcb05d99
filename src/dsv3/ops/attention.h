#pragma once
// Causal attention over MLA's heads (arXiv 2412.19437, section 2.1.1): keys are [nope ; one rope key for all
// heads].

#include "dsv3/ops/options.h"

namespace dsv3 {

// Who may attend to whom, built once per micro-batch.
struct AttentionMask {
  // bool [B, 1, S, S], true = may attend; undefined: plain causal.
  at::Tensor allowed_B1SS;

  // padding_BS: bool, true = a real token, or undefined. documents_BS: int64, attention stays inside a
  // document, or undefined. Both undefined: plain causal, nothing is stored.
  static AttentionMask create(const at::Tensor& padding_BS, const at::Tensor& documents_BS);
};

struct AttentionDims {
  int64_t nope = 0, rope = 0, v = 0;  // qk_nope_head_dim, qk_rope_head_dim, v_head_dim
  double scale = 1;                   // of the scores
};

// q_nope: [B, S, N, nope]; q_rope: [B, S, N, rope], rotated; kv: [B, S, N, nope + v] (kv_b_proj's output);
// k_rope: [B, S, 1, rope], rotated. Returns [B, S, N, v]. Softmax at least in fp32. A row that may attend to
// nothing gives some finite value. CPU `auto` and `flash` are flash attention over values padded to the key's
// width; `math` materialises the scores.
at::Tensor attention(const OpsOptions& ops, const at::Tensor& q_nope, const at::Tensor& q_rope,
                     const at::Tensor& kv, const at::Tensor& k_rope, const AttentionMask& mask,
                     const AttentionDims& dims);

// Decoding over the compressed cache: kv_b_proj's halves are absorbed into query and output, so that keys and
// values are never expanded. Inference only.
//   q_nope, q_rope: [B, Q, N, ·]; latent_BTC: normed c_kv of all T cached positions; k_rope_BTR: rotated;
//   kv_b: [N (nope + v), C]; allowed: bool [B, 1, Q, T]. Returns [B, Q, N, v].
at::Tensor latent_attention(const at::Tensor& q_nope, const at::Tensor& q_rope, const at::Tensor& latent_BTC,
                            const at::Tensor& k_rope_BTR, const at::Tensor& kv_b, const at::Tensor& allowed,
                            const AttentionDims& dims);

}  // namespace dsv3
