#pragma once
// The decoder block: MLA, then a dense FFN or a mixture of experts. Forward code only; backward is autograd
// inside a block plus the operators' own weight gradients.

#include "dsv3/config/model_config.h"
#include "dsv3/model/expert_dispatch.h"
#include "dsv3/model/rope_tables.h"
#include "dsv3/model/unit_params.h"
#include "dsv3/ops/attention.h"
#include "dsv3/ops/balance_loss.h"

namespace dsv3 {

// What the blocks of one model share.
struct BlockShared {
  ModelConfig config;
  OpsOptions ops;
  BalanceOptions balance;
  AttentionDims attention;
  RouterOptions router;
  std::unique_ptr<ExpertDispatch> dispatch;
};

// The balancing state of one MoE layer. Moved once a step by the optimizer, never inside forward.
struct RouterState {
  int64_t layer = 0;
  at::Tensor bias_E;   // e_score_correction_bias, at least fp32
  at::Tensor count_E;  // int64, tokens of this step so far
};

// What the blocks of one forward pass share.
struct PassContext {
  const BlockShared* shared = nullptr;
  RopeTables rope;
  AttentionMask mask;
  at::Tensor valid_BS;  // bool or undefined: tokens that count for balancing
};

struct BlockOutput {
  at::Tensor y_BSH;
  PlanPtr plan;             // nullptr in a dense block
  Routing routing;          // undefined tensors in a dense block
  at::Tensor balance_loss;  // scalar in the graph, summed over sequences; undefined when there is none
};

// What a MoE layer takes over instead of choosing anew; normally empty.
struct Replay {
  at::Tensor ids_TK;  // of another run's router, or of the pass that is recomputed
  PlanPtr plan;       // made from ids_TK already
};

// x + MLA(norm(x)); x: [B, S, H].
at::Tensor attention_half(const PassContext& pass, const UnitParams& p, const at::Tensor& x_BSH);

// x + FFN(norm(x)) or x + MoE(norm(x)). router: nullptr in a dense block.
BlockOutput ffn_half(const PassContext& pass, const UnitParams& p, const RouterState* router,
                     const at::Tensor& x_BSH, const Replay& replay);

// Inputs of an MTP block of depth k: eh_proj([enorm(embedding of token i + k) ; hnorm(hidden of depth k −
// 1)]), in the order of the released weights.
at::Tensor mtp_input(const PassContext& pass, const UnitParams& p, const at::Tensor& embedded_BSH,
                     const at::Tensor& hidden_BSH);

// The projections of MLA before attention, shared with cached decoding.
struct MlaQuery {
  at::Tensor nope, rope;  // [B, S, N, nope], [B, S, N, rope] rotated
};
struct MlaLatent {
  at::Tensor c_kv;    // [B, S, kv_lora_rank], normed
  at::Tensor k_rope;  // [B, S, 1, rope], rotated
};
MlaQuery mla_query(const PassContext& pass, const UnitParams& p, const at::Tensor& x_BSH);
MlaLatent mla_latent(const PassContext& pass, const UnitParams& p, const at::Tensor& x_BSH);
// o_proj of the heads' outputs [B, S, N, v].
at::Tensor mla_output(const PassContext& pass, const UnitParams& p, const at::Tensor& heads_BSNV);

}  // namespace dsv3
