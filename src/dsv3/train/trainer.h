#pragma once
// The training loop: uses nothing that a library user could not.

#include <functional>

#include "dsv3/checkpoint/train_state.h"
#include "dsv3/optim/optimizer.h"
#include "dsv3/train/loader.h"
#include "dsv3/train/metrics.h"

namespace dsv3 {

// What a mesh moves between two readings.
class CommMeter {
 public:
  explicit CommMeter(const Mesh& mesh) : mesh_(mesh) { begin(); }
  void begin();
  // Fills comm and comm_s with what was moved since begin(). All ranks call it; its own sum is counted
  // nowhere.
  void read(StepMetrics& metrics);

 private:
  Mesh mesh_;
  std::vector<GroupCounters> before_;
};

class Trainer {
 public:
  Trainer(const RunConfig& run, Model& model, Optimizer& optimizer, Loader& loader)
      : run_(run), model_(model), optimizer_(optimizer), loader_(loader), ahead_(loader) {}

  // One optimizer step on the next samples.
  StepMetrics step();
  // Error with code bad_steps after train.max_bad_steps non-finite steps in a row.
  void check_progress() const;
  bool done() const { return done_at(state_); }
  // Steps of the whole run where that is known before it ends, else 0.
  int64_t total_steps() const;
  const TrainState& state() const { return state_; }
  // Goes on from there: weights and moments are those of that step. Returns what Loader::go_on() says.
  std::vector<std::string> resume(const TrainState& state);

 private:
  // Sequences of the step that follows this state.
  int64_t sequences_after(const TrainState& state) const;
  bool done_at(const TrainState& state) const;

  const RunConfig& run_;
  Model& model_;
  Optimizer& optimizer_;
  Loader& loader_;
  LoaderAhead ahead_;
  TrainState state_;
  CommMeter comm_{model_.mesh()};
};

// Sets threads' determinism as [train] asks for; once, before the first tensor.
void set_determinism(bool deterministic);

}  // namespace dsv3
