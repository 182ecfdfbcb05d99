// Multi-head latent attention, arXiv 2412.19437, section 2.1.1.

#include "dsv3/model/block.h"
#include "dsv3/ops/linear.h"
#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

// transformers builds the two latent norms without the configuration's eps; it matters for Moonlight's 1e-5.
constexpr double kLatentNormEps = 1e-6;

}  // namespace

MlaQuery mla_query(const PassContext& pass, const UnitParams& p, const at::Tensor& x_BSH) {
  const ModelConfig& config = pass.shared->config;
  const OpsOptions& ops = pass.shared->ops;
  at::Tensor q;
  if (config.q_lora_rank) {
    q = linear(ops, x_BSH, p[Role::q_a_proj], p.find(Role::q_a_proj_bias));
    q = linear(ops, rms_norm(ops, q, p[Role::q_a_layernorm], kLatentNormEps), p[Role::q_b_proj]);
  } else {
    q = linear(ops, x_BSH, p[Role::q_proj]);
  }
  q = q.view({q.size(0), q.size(1), config.num_attention_heads, config.qk_head_dim()});
  return {q.narrow(-1, 0, config.qk_nope_head_dim),
          rope(q.narrow(-1, config.qk_nope_head_dim, config.qk_rope_head_dim), pass.rope)};
}

MlaLatent mla_latent(const PassContext& pass, const UnitParams& p, const at::Tensor& x_BSH) {
  const ModelConfig& config = pass.shared->config;
  const OpsOptions& ops = pass.shared->ops;
  const at::Tensor kv = linear(ops, x_BSH, p[Role::kv_a_proj], p.find(Role::kv_a_proj_bias));
  const at::Tensor c_kv =
      rms_norm(ops, kv.narrow(-1, 0, config.kv_lora_rank), p[Role::kv_a_layernorm], kLatentNormEps);
  return {c_kv, rope(kv.narrow(-1, config.kv_lora_rank, config.qk_rope_head_dim).unsqueeze(2), pass.rope)};
}

at::Tensor mla_output(const PassContext& pass, const UnitParams& p, const at::Tensor& heads_BSNV) {
  return linear(pass.shared->ops, heads_BSNV.flatten(2), p[Role::o_proj], p.find(Role::o_proj_bias));
}

at::Tensor attention_half(const PassContext& pass, const UnitParams& p, const at::Tensor& x_BSH) {
  const BlockShared& shared = *pass.shared;
  const at::Tensor x = rms_norm(shared.ops, x_BSH, p[Role::input_layernorm], shared.config.rms_norm_eps);
  const MlaQuery q = mla_query(pass, p, x);
  const MlaLatent latent = mla_latent(pass, p, x);
  const at::Tensor kv = linear(shared.ops, latent.c_kv, p[Role::kv_b_proj])
                            .view({x.size(0), x.size(1), shared.config.num_attention_heads,
                                   shared.config.qk_nope_head_dim + shared.config.v_head_dim});
  const at::Tensor heads =
      attention(shared.ops, q.nope, q.rope, kv, latent.k_rope, pass.mask, shared.attention);
  return x_BSH + mla_output(pass, p, heads);
}

}  // namespace dsv3
