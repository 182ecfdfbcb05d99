#include "dsv3/config/param_table.h"

#include <algorithm>
#include <string>

#include "dsv3/base/checked.h"

namespace dsv3 {
namespace {

// Adds the parameters of one unit after the other. Names follow transformers'
// DeepseekV3ForCausalLM.state_dict().
class Builder {
 public:
  explicit Builder(const ModelConfig& config) : c_(config) {}

  ParamTable build() {
    table_.num_blocks = c_.num_hidden_layers;
    begin_unit("");
    weight("model.embed_tokens", Role::embed_tokens, {c_.vocab_size, c_.hidden_size});
    for (int64_t layer = 0; layer < c_.num_hidden_layers; ++layer) {
      begin_unit("model.layers." + std::to_string(layer) + ".");
      block(c_.is_moe(layer));
    }
    begin_unit("");
    norm("model.norm", Role::final_norm, c_.hidden_size);
    if (!c_.tie_word_embeddings) weight("lm_head", Role::lm_head, {c_.vocab_size, c_.hidden_size});
    for (int64_t depth = 1; depth <= c_.num_nextn_predict_layers; ++depth) {
      begin_unit("model.layers." + std::to_string(c_.num_hidden_layers + depth - 1) + ".");
      norm("enorm", Role::enorm, c_.hidden_size);
      norm("hnorm", Role::hnorm, c_.hidden_size);
      weight("eh_proj", Role::eh_proj, {c_.hidden_size, 2 * c_.hidden_size});
      block(true);
      norm("shared_head.norm", Role::shared_head_norm, c_.hidden_size);
    }
    return std::move(table_);
  }

 private:
  void begin_unit(std::string prefix) {
    prefix_ = std::move(prefix);
    unit_ = table_.num_units++;
  }

  ParamSpec& add(const std::string& name, Role role, std::vector<int64_t> shape) {
    ParamSpec spec;
    spec.name = prefix_ + name;
    spec.shape = std::move(shape);
    spec.role = role;
    spec.unit = unit_;
    spec.hf = {{spec.name, 0, spec.shape}};
    table_.params.push_back(std::move(spec));
    return table_.params.back();
  }
  void weight(const std::string& module, Role role, std::vector<int64_t> shape) {
    add(module + ".weight", role, std::move(shape));
  }
  void norm(const std::string& module, Role role, int64_t size) {
    ParamSpec& spec = add(module + ".weight", role, {size});
    spec.init = InitKind::ones;
    spec.decay = false;
  }
  void bias(const std::string& module, Role role, int64_t size) {
    if (!c_.attention_bias) return;
    ParamSpec& spec = add(module + ".bias", role, {size});
    spec.init = InitKind::zeros;
    spec.decay = false;
  }

  void block(bool moe) {
    norm("input_layernorm", Role::input_layernorm, c_.hidden_size);
    attention();
    norm("post_attention_layernorm", Role::post_attention_layernorm, c_.hidden_size);
    if (moe) {
      experts();
    } else {
      ffn("mlp", {Role::gate_proj, Role::up_proj, Role::down_proj}, c_.intermediate_size);
    }
  }

  void attention() {
    const int64_t hidden = c_.hidden_size, heads = c_.num_attention_heads;
    const int64_t kv_a = c_.kv_lora_rank + c_.qk_rope_head_dim;
    if (c_.q_lora_rank) {
      weight("self_attn.q_a_proj", Role::q_a_proj, {*c_.q_lora_rank, hidden});
      bias("self_attn.q_a_proj", Role::q_a_proj_bias, *c_.q_lora_rank);
      norm("self_attn.q_a_layernorm", Role::q_a_layernorm, *c_.q_lora_rank);
      weight("self_attn.q_b_proj", Role::q_b_proj, {heads * c_.qk_head_dim(), *c_.q_lora_rank});
    } else {
      weight("self_attn.q_proj", Role::q_proj, {heads * c_.qk_head_dim(), hidden});
    }
    weight("self_attn.kv_a_proj_with_mqa", Role::kv_a_proj, {kv_a, hidden});
    bias("self_attn.kv_a_proj_with_mqa", Role::kv_a_proj_bias, kv_a);
    norm("self_attn.kv_a_layernorm", Role::kv_a_layernorm, c_.kv_lora_rank);
    weight("self_attn.kv_b_proj", Role::kv_b_proj,
           {heads * (c_.qk_nope_head_dim + c_.v_head_dim), c_.kv_lora_rank});
    weight("self_attn.o_proj", Role::o_proj, {hidden, heads * c_.v_head_dim});
    bias("self_attn.o_proj", Role::o_proj_bias, hidden);
  }

  struct FfnRoles {
    Role gate, up, down;
  };
  void ffn(const std::string& module, FfnRoles roles, int64_t width) {
    weight(module + ".gate_proj", roles.gate, {width, c_.hidden_size});
    weight(module + ".up_proj", roles.up, {width, c_.hidden_size});
    weight(module + ".down_proj", roles.down, {c_.hidden_size, width});
  }

  void experts() {
    const int64_t num = c_.n_routed_experts, width = c_.moe_intermediate_size, hidden = c_.hidden_size;
    weight("mlp.gate", Role::router, {num, hidden});
    ParamSpec& correction = add("mlp.gate.e_score_correction_bias", Role::router_bias, {num});
    correction.init = InitKind::zeros;
    correction.decay = false;
    correction.trainable = false;

    ParamSpec& gate_up = add("mlp.experts.gate_up_proj", Role::experts_gate_up, {num, 2 * width, hidden});
    gate_up.group = ParamGroup::expert;
    gate_up.hf.clear();
    for (int64_t e = 0; e < num; ++e) {
      const int64_t begin = e * 2 * width * hidden;
      gate_up.hf.push_back({expert(e, "gate_proj"), begin, {width, hidden}});
      gate_up.hf.push_back({expert(e, "up_proj"), begin + width * hidden, {width, hidden}});
    }
    ParamSpec& down = add("mlp.experts.down_proj", Role::experts_down, {num, hidden, width});
    down.group = ParamGroup::expert;
    down.hf.clear();
    for (int64_t e = 0; e < num; ++e) {
      down.hf.push_back({expert(e, "down_proj"), e * hidden * width, {hidden, width}});
    }

    if (c_.n_shared_experts > 0) {
      ffn("mlp.shared_experts", {Role::shared_gate_proj, Role::shared_up_proj, Role::shared_down_proj},
          c_.n_shared_experts * width);
    }
  }
  std::string expert(int64_t e, const char* projection) const {
    return prefix_ + "mlp.experts." + std::to_string(e) + "." + projection + ".weight";
  }

  const ModelConfig& c_;
  ParamTable table_;
  std::string prefix_;
  int unit_ = 0;
};

}  // namespace

int64_t ParamSpec::numel() const {
  return checked_numel(shape).value();  // ModelConfig::validate bounds every product
}

int ParamTable::block_unit(int64_t layer) const {
  return static_cast<int>(layer < num_blocks ? layer + 1 : layer + 2);  // the head's unit lies between
}

const ParamSpec* ParamTable::find(std::string_view name) const {
  const auto found =
      std::find_if(params.begin(), params.end(), [&](const auto& spec) { return spec.name == name; });
  return found == params.end() ? nullptr : &*found;
}

std::string ParamTable::unit_name(int unit) const {
  if (unit == 0) return "embedding";
  if (unit == head_unit()) return "head";
  if (unit < head_unit()) return "block " + std::to_string(unit - 1);
  return "mtp " + std::to_string(unit - head_unit());
}

ParamTable param_table(const ModelConfig& config) { return Builder(config).build(); }

int64_t num_params(const ModelConfig& config, bool mtp) {
  const ParamTable table = param_table(config);
  int64_t total = 0;
  for (const ParamSpec& spec : table.params) {
    if (spec.trainable && (mtp || spec.unit <= table.head_unit())) total += spec.numel();
  }
  return total;
}

int64_t num_active_params(const ModelConfig& config) {
  const ParamTable table = param_table(config);
  int64_t total = 0;
  for (const ParamSpec& spec : table.params) {
    if (!spec.trainable || spec.unit > table.head_unit()) continue;
    const bool routed = spec.group == ParamGroup::expert;
    total += routed ? spec.numel() / config.n_routed_experts * config.num_experts_per_tok : spec.numel();
  }
  return total;
}

std::vector<SharedCopy> mtp_shared_copies(const ModelConfig& config) {
  const std::string head = config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  std::vector<SharedCopy> copies;
  for (int64_t depth = 1; depth <= config.num_nextn_predict_layers; ++depth) {
    const std::string layer = "model.layers." + std::to_string(config.num_hidden_layers + depth - 1) + ".";
    copies.push_back({layer + "embed_tokens.weight", "model.embed_tokens.weight"});
    copies.push_back({layer + "shared_head.head.weight", head});
  }
  return copies;
}

}  // namespace dsv3
