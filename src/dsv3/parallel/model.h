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
#include "dsv3/parallel/flat_unit.h"
#include "dsv3/parallel/output.h"

namespace dsv3 {

enum class Recompute : int { none, block, attention, moe };
enum class Reshard : int { after_forward, after_backward, never };
enum class PrefetchBackward : int { none, pre, post };
enum class Accumulate : int { sharded, unsharded };

// How the model is executed; everything that is not its mathematics.
struct ExecOptions {
  OpsOptions ops;
  at::ScalarType dtype = at::kFloat;  // bf16, fp32 or fp64
  at::Device device = at::kCPU;
  Recompute recompute = Recompute::none;
  int64_t recompute_every = 1;  // with Recompute::block: every N-th block
  Reshard reshard = Reshard::after_backward;
  int64_t prefetch_forward = 1;  // blocks whose all-gather runs ahead
  PrefetchBackward prefetch_backward = PrefetchBackward::pre;
  int64_t max_unsharded = 0;                    // blocks gathered at once, 0: no limit
  Accumulate accumulate = Accumulate::sharded;  // gradients between micro-batches
  BalanceOptions balance;
  bool mtp_pre_norm = false;        // hidden input of depth 1 before the final norm
  std::vector<std::string> freeze;  // globs over parameter names
  bool deterministic = true;

  static ExecOptions from(const RunConfig& run);
};

class Step;

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
  // Writes a folder that transformers loads; bf16 when training in bf16, else fp32. tokenizer: data.tokenizer
  // of the run, copied along. All ranks call it, rank 0 writes, and holds one piece of a parameter at a time.
  void save_hf(const std::filesystem::path& folder, const std::filesystem::path& tokenizer = {});
  // Whether every weight is a finite number, on every rank; they call it alike.
  bool is_finite() const;

  // Counts the tokens of all micro-batches of all ranks, zeroes gradients and router counts.
  Step begin_step(const Batch& batch);
  // After an exception in a step: drops what is under way, so that a new step can begin. Outputs of the step
  // mean nothing any more.
  void abort_step();
  // Forward pass without graph, counters or state.
  Output evaluate(const MicroBatch& micro, const ForwardOptions& options);

  const ModelConfig& config() const { return shared_.config; }
  const ExecOptions& exec() const { return exec_; }
  const Mesh& mesh() const { return mesh_; }
  const ParamTable& table() const { return table_; }
  const BlockShared& shared() const { return shared_; }
  PassContext pass_context(const MicroBatch& micro) const;
  // In the order of the table. A unit has a flat unit for its dense parameters and one for its experts, and
  // of each one more when some are frozen.
  const std::vector<std::unique_ptr<FlatUnit>>& flat_units() const { return flat_units_; }
  const UnitParams& unit(int index) const { return units_[static_cast<size_t>(index)]; }
  std::vector<FlatUnit*> flat_units_of(int unit) const;
  std::vector<RouterState>& router_states() { return router_states_; }
  RouterState* router_state(int64_t layer);         // nullptr in a dense block
  at::Tensor bias_of(const ParamSpec& spec) const;  // [E], of the router whose correction bias spec is
  // The output head: lm_head, or the embedding when tied.
  Param& head() const;
  // Elements [begin, begin + count) of a parameter, gathered from the ranks of one copy of the model: flat,
  // at least fp32. All of them call it alike. gradient: of the finished step; zeros when frozen.
  at::Tensor collect(const ParamSpec& spec, int64_t begin, int64_t count, bool gradient = false) const;

 private:
  void add_flat_units(int unit, ParamGroup group);
  std::vector<int64_t> load_alone(const std::filesystem::path& folder, bool allow_missing_mtp);

  Mesh mesh_;
  ExecOptions exec_;
  ParamTable table_;
  BlockShared shared_;
  std::vector<std::unique_ptr<FlatUnit>> flat_units_;
  std::vector<std::vector<FlatUnit*>> flat_of_unit_;
  std::vector<UnitParams> units_;
  std::vector<RouterState> router_states_;
};

}  // namespace dsv3
