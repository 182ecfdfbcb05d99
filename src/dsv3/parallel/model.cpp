#include "dsv3/parallel/model.h"

#include <fnmatch.h>

#include <charconv>

#include "dsv3/base/error.h"
#include "dsv3/ops/device.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/parallel/all_to_all.h"

namespace dsv3 {
namespace {

template <class T>
T choose(const char* key, const std::string& value,
         std::initializer_list<std::pair<const char*, T>> choices) {
  for (const auto& [name, result] : choices)
    if (value == name) return result;
  throw UsageError(key, "unknown value '" + printable(value) + "'");
}

bool matches(const std::vector<std::string>& globs, const std::string& name) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const std::string& glob) { return fnmatch(glob.c_str(), name.c_str(), 0) == 0; });
}

}  // namespace

ExecOptions ExecOptions::from(const RunConfig& run) {
  ExecOptions exec;
  exec.ops = OpsOptions::parse(run.ops.backend, run.ops.grouped, run.ops.attention);
  exec.dtype = choose<at::ScalarType>("train.dtype", run.train.dtype,
                                      {{"bf16", at::kBFloat16}, {"fp32", at::kFloat}, {"fp64", at::kDouble}});
  exec.device =
      choose<at::DeviceType>("train.device", run.train.device, {{"cpu", at::kCPU}, {"cuda", at::kCUDA}});
  if (exec.device == at::kCUDA && num_cuda_devices() == 0)
    throw UsageError("train.device", "'cuda', but no GPU is visible", "use cpu");
  const std::string& recompute = run.parallel.recompute;
  if (recompute.starts_with("every:")) {
    exec.recompute = Recompute::block;
    const char* first = recompute.data() + 6;
    const char* last = recompute.data() + recompute.size();
    auto [end, error] = std::from_chars(first, last, exec.recompute_every);
    if (error != std::errc() || end != last || exec.recompute_every < 1)
      throw UsageError("parallel.recompute",
                       "'" + printable(recompute) + "' is not every:N with N of 1 or more");
  } else {
    exec.recompute = choose<Recompute>("parallel.recompute", recompute,
                                       {{"none", Recompute::none},
                                        {"block", Recompute::block},
                                        {"attention", Recompute::attention},
                                        {"moe", Recompute::moe}});
  }
  exec.reshard = choose<Reshard>("parallel.reshard", run.parallel.reshard,
                                 {{"after_forward", Reshard::after_forward},
                                  {"after_backward", Reshard::after_backward},
                                  {"never", Reshard::never}});
  exec.prefetch_forward = run.parallel.prefetch_forward;
  exec.prefetch_backward = choose<PrefetchBackward>(
      "parallel.prefetch_backward", run.parallel.prefetch_backward,
      {{"none", PrefetchBackward::none}, {"pre", PrefetchBackward::pre}, {"post", PrefetchBackward::post}});
  exec.max_unsharded = run.parallel.max_unsharded;
  exec.accumulate =
      choose<Accumulate>("parallel.accumulate", run.parallel.accumulate,
                         {{"sharded", Accumulate::sharded}, {"unsharded", Accumulate::unsharded}});
  exec.balance.kind = choose<BalanceKind>(
      "balance.loss", run.balance.loss,
      {{"none", BalanceKind::none}, {"batch", BalanceKind::batch}, {"sequence", BalanceKind::sequence}});
  exec.balance.indicator = choose<BalanceIndicator>(
      "balance.indicator", run.balance.indicator,
      {{"unbiased", BalanceIndicator::unbiased}, {"selected", BalanceIndicator::selected}});
  exec.balance.alpha = run.balance.alpha;
  exec.mtp_pre_norm = choose<bool>("mtp.hidden", run.mtp.hidden, {{"post_norm", false}, {"pre_norm", true}});
  exec.freeze = run.optim.freeze;
  exec.deterministic = run.train.deterministic;
  return exec;
}

Model::Model(const ModelConfig& config, const Mesh& mesh, const ExecOptions& exec)
    : mesh_(mesh), exec_(exec), table_(param_table(config)) {
  if (config.has_moe() && config.n_routed_experts % mesh.ep() != 0)
    throw UsageError("parallel.ep", std::to_string(mesh.ep()) + " does not divide model.n_routed_experts = " +
                                        std::to_string(config.n_routed_experts));
  shared_.config = config;
  shared_.ops = exec.ops;
  shared_.balance = exec.balance;
  shared_.attention = {.nope = config.qk_nope_head_dim,
                       .rope = config.qk_rope_head_dim,
                       .v = config.v_head_dim,
                       .scale = attention_scale(config)};
  shared_.router = {.top_k = config.num_experts_per_tok,
                    .groups = config.n_group,
                    .kept_groups = config.topk_group,
                    .scale = config.routed_scaling_factor,
                    .normalise = config.norm_topk_prob};
  shared_.dispatch = mesh_.ep() > 1 ? all_to_all_dispatch(mesh_.expert(), config.n_routed_experts)
                                    : local_dispatch(config.n_routed_experts);

  units_.resize(static_cast<size_t>(table_.num_units));
  flat_of_unit_.resize(units_.size());
  for (int unit = 0; unit < table_.num_units; ++unit)
    for (ParamGroup group : {ParamGroup::dense, ParamGroup::expert}) add_flat_units(unit, group);
  for (const std::string& glob : exec.freeze)
    if (std::none_of(table_.params.begin(), table_.params.end(),
                     [&](const ParamSpec& spec) { return matches({glob}, spec.name); }))
      throw UsageError("optim.freeze", "'" + printable(glob) + "' matches no parameter",
                       "names are those of transformers' state_dict(), e.g. model.layers.0.*");
  const auto bias = at::TensorOptions().device(exec.device).dtype(at_least_fp32(exec.dtype));
  for (int64_t layer = 0; layer < config.num_hidden_layers + config.num_nextn_predict_layers; ++layer)
    if (config.is_moe(layer))
      router_states_.push_back({.layer = layer,
                                .bias_E = at::zeros({config.n_routed_experts}, bias),
                                .count_E = at::zeros({config.n_routed_experts}, bias.dtype(at::kLong))});
}

Model::~Model() = default;

void Model::add_flat_units(int unit, ParamGroup group) {
  const bool experts = group == ParamGroup::expert;
  for (bool trainable : {true, false}) {
    std::vector<const ParamSpec*> specs;
    for (const ParamSpec& spec : table_.params)
      if (spec.unit == unit && spec.group == group && spec.trainable &&
          matches(exec_.freeze, spec.name) != trainable)
        specs.push_back(&spec);
    if (specs.empty()) continue;
    flat_units_.push_back(std::make_unique<FlatUnit>(
        specs, FlatUnitOptions{.name = table_.unit_name(unit),
                               .compute_dtype = exec_.dtype,
                               .device = exec_.device,
                               .trainable = trainable,
                               .shard = experts ? &mesh_.expert_data() : &mesh_.data(),
                               .replicate = &mesh_.replicate(),
                               .part = experts ? mesh_.expert().rank() : 0,
                               .parts = experts ? mesh_.ep() : 1}));
    FlatUnit* flat = flat_units_.back().get();
    flat_of_unit_[unit].push_back(flat);
    for (FlatUnit::Slot& slot : flat->slots()) units_[unit].set(slot.spec->role, &slot.param);
  }
}

void Model::abort_step() {
  for (const auto& unit : flat_units_) unit->reset();
}

std::vector<FlatUnit*> Model::flat_units_of(int unit) const {
  return flat_of_unit_[static_cast<size_t>(unit)];
}

RouterState* Model::router_state(int64_t layer) {
  for (RouterState& state : router_states_)
    if (state.layer == layer) return &state;
  return nullptr;
}

Param& Model::head() const {
  return shared_.config.tie_word_embeddings ? units_[0][Role::embed_tokens]
                                            : units_[static_cast<size_t>(table_.head_unit())][Role::lm_head];
}

PassContext Model::pass_context(const MicroBatch& micro) const {
  at::NoGradGuard no_grad;
  PassContext pass;
  pass.shared = &shared_;
  const int64_t S = micro.tokens_BS.size(1);
  const at::Tensor positions = micro.positions_BS.defined()
                                   ? micro.positions_BS
                                   : at::arange(S, micro.tokens_BS.options()).unsqueeze(0);
  pass.rope = rope_tables(shared_.config, positions, at_least_fp32(exec_.dtype));
  pass.mask = AttentionMask::create(micro.padding_BS, micro.documents_BS);
  return pass;
}

}  // namespace dsv3
