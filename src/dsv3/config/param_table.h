#pragma once
// The one table of parameters. Initialisation, sharding, optimizer, checkpoints and the planner read it;
// nobody else spells a parameter's name or shape.

#include <cstdint>
#include <string>
#include <vector>

#include "dsv3/config/model_config.h"

namespace dsv3 {

// What a parameter is inside its unit: how the model's code asks for it.
enum class Role : int {
  embed_tokens,
  lm_head,
  final_norm,
  input_layernorm,
  post_attention_layernorm,
  q_proj,
  q_a_proj,
  q_a_proj_bias,
  q_a_layernorm,
  q_b_proj,
  kv_a_proj,
  kv_a_proj_bias,
  kv_a_layernorm,
  kv_b_proj,
  o_proj,
  o_proj_bias,
  gate_proj,
  up_proj,
  down_proj,  // dense FFN
  router,
  router_bias,  // mlp.gate.weight, mlp.gate.e_score_correction_bias
  experts_gate_up,
  experts_down,  // [E, 2I, H] (gate rows first) and [E, H, I]
  shared_gate_proj,
  shared_up_proj,
  shared_down_proj,
  enorm,
  hnorm,
  eh_proj,
  shared_head_norm,  // MTP
  count,
};

enum class ParamGroup : int { dense, expert };  // FSDP over `data` or over `expert_data`
enum class InitKind : int {
  normal,
  ones,
  zeros
};  // normal: std = initializer_range; the padding row is zero

// One Hugging Face tensor of a parameter: numel(shape) elements from element `offset` on of the parameter,
// row-major.
struct HfTensor {
  std::string name;
  int64_t offset = 0;
  std::vector<int64_t> shape;
};

struct ParamSpec {
  std::string name;  // transformers' state_dict() key, e.g. model.layers.3.mlp.experts.gate_up_proj
  std::vector<int64_t> shape;
  Role role;
  int unit = 0;  // index into the list of units, see unit_name()
  ParamGroup group = ParamGroup::dense;
  InitKind init = InitKind::normal;
  bool decay = true;         // weight decay: not on norms and biases
  bool trainable = true;     // false: the router's correction bias, kept in fp32, moved by the balancing rule
  std::vector<HfTensor> hf;  // on disk: one for most, one per expert and slice for grouped experts
  int64_t numel() const;
};

// Units in the order of the forward pass: 0 embedding; 1 … L blocks; L + 1 head (final norm and lm_head);
// L + 1 + k MTP depth k (its projections and its block).
struct ParamTable {
  std::vector<ParamSpec> params;  // unit after unit; the order in which checkpoints list them
  int num_units = 0;
  int64_t num_blocks = 0;

  int head_unit() const { return static_cast<int>(num_blocks) + 1; }
  int block_unit(int64_t layer) const;  // layer >= num_blocks: the MTP block of depth layer - num_blocks + 1
  const ParamSpec* find(std::string_view name) const;  // nullptr when absent
  std::string unit_name(int unit) const;               // "embedding", "block 3", "head", "mtp 1"
};

// With tied embeddings there is no lm_head entry.
ParamTable param_table(const ModelConfig& config);

// Trainable parameters. mtp: count the MTP modules too (their shared embedding and head are never repeated).
int64_t num_params(const ModelConfig& config, bool mtp);
// Parameters that one token meets in the main model: routed experts count top-k of n (37,552,282,624 for
// 671B).
int64_t num_active_params(const ModelConfig& config);

// Copies of shared tensors in Hugging Face's MTP layers: {name on disk, the state_dict key that it repeats}.
struct SharedCopy {
  std::string name, of;
};
std::vector<SharedCopy> mtp_shared_copies(const ModelConfig& config);

}  // namespace dsv3
