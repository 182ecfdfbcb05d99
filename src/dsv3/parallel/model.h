#pragma once
// The model of a run, sharded from birth: parameters, balancing state, and the step that trains them.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dsv3/comm/mesh.h"
#include "dsv3/config/run_config.h"
#include "dsv3/model/block.h"
#include "dsv3/model/micro_batch.h"
#include "dsv3/ops/token_logprob.h"
#include "dsv3/parallel/flat_unit.h"

namespace dsv3 {

enum class Recompute : int { none, block, attention, moe };
enum class Reshard : int { after_forward, after_backward, never };

// How the model is executed; everything that is not its mathematics.
struct ExecOptions {
  OpsOptions ops;
  at::ScalarType dtype = at::kFloat;  // bf16, fp32 or fp64
  at::Device device = at::kCPU;
  Recompute recompute = Recompute::none;
  int64_t recompute_every = 1;  // with Recompute::block: every N-th block
  Reshard reshard = Reshard::after_backward;
  BalanceOptions balance;
  bool mtp_pre_norm = false;        // hidden input of depth 1 before the final norm
  std::vector<std::string> freeze;  // globs over parameter names
  bool deterministic = true;

  static ExecOptions from(const RunConfig& run);
};

class Step;
struct Output;
struct ForwardOptions;

// Promises: not movable, Params at stable addresses whose data is there during a call only; each rank makes
// the same calls in the same order.
class Model {
 public:
  Model(const ModelConfig& config, const Mesh& mesh, const ExecOptions& exec);
  Model(const Model&) = delete;
  ~Model();

  // Philox normal numbers by (seed, parameter name, index): the same for every layout.
  void initialise(uint64_t seed);
  // Weights from a Hugging Face folder or a run folder's hf/. missing_mtp: what to do about MTP modules that
  // the folder lacks: an InputError, or keep what initialise() gave. Returns the depths that were missing.
  std::vector<int64_t> load(const std::filesystem::path& folder, bool allow_missing_mtp = false);
  // Writes a folder that transformers loads; bf16 when training in bf16, else fp32.
  void save_hf(const std::filesystem::path& folder) const;

  // Counts the tokens of all micro-batches, zeroes gradients and router counts.
  Step begin_step(const Batch& batch);
  // Forward pass without graph, counters or state.
  Output evaluate(const MicroBatch& micro, const ForwardOptions& options);

  const ModelConfig& config() const { return shared_.config; }
  const ExecOptions& exec() const { return exec_; }
  const ParamTable& table() const { return table_; }
  const BlockShared& shared() const { return shared_; }
  PassContext pass_context(const MicroBatch& micro) const;
  // Units in the order of the table; a unit with experts has two flat units.
  const std::vector<std::unique_ptr<FlatUnit>>& flat_units() const { return flat_units_; }
  const UnitParams& unit(int index) const { return units_[static_cast<size_t>(index)]; }
  std::vector<FlatUnit*> flat_units_of(int unit) const;
  std::vector<RouterState>& router_states() { return router_states_; }
  RouterState* router_state(int64_t layer);  // nullptr in a dense block
  // The output head: lm_head, or the embedding when tied.
  Param& head() const;

 private:
  ExecOptions exec_;
  ParamTable table_;
  BlockShared shared_;
  std::vector<std::unique_ptr<FlatUnit>> flat_units_;
  std::vector<std::vector<FlatUnit*>> flat_of_unit_;
  std::vector<UnitParams> units_;
  std::vector<RouterState> router_states_;
};

}  // namespace dsv3
