#pragma once
// A small run on the committed text of tests/golden/trajectory.

#include "dsv3/base/json.h"
#include "dsv3/parallel/step.h"
#include "dsv3/train/trainer.h"
#include "support/tensors.h"

namespace dsv3::test {

inline const std::filesystem::path kTrajectory =
    std::filesystem::path(DSV3_SOURCE_DIR) / "tests/golden/trajectory";

// The run file of the trajectory with flags over it, on the back end that this run of the suite proves.
inline RunConfig trajectory_run(std::vector<std::string> flags = {}) {
  flags.push_back(std::string("ops.backend=") + (backend() == Backend::aten ? "aten" : "fast"));
  return RunConfig::load(kTrajectory / "run.toml", flags);
}

struct Training {
  explicit Training(RunConfig config) : Training(std::move(config), Mesh::create({})) {}
  Training(RunConfig config, const Mesh& mesh)
      : run(std::move(config)),
        loader(run, mesh),
        model(run.model, mesh, ExecOptions::from(run)),
        optimizer(model, run.optim),
        trainer(run, model, optimizer, loader) {
    set_determinism(true);
    model.initialise(run.train.seed);
    if (!run.model_init.empty()) model.load(run.model_init);
  }
  RunConfig run;
  Loader loader;
  Model model;
  Optimizer optimizer;
  Trainer trainer;
};

// Forward and backward of one batch under the standard loss; gradients and counts stay in the model.
inline StepResult run_batch(Model& model, const Batch& batch, double mtp_lambda = 0.3) {
  Step step = model.begin_step(batch);
  for (const MicroBatch& micro : batch.micro) {
    Output output = step.forward(micro);
    standard_loss(output, step.counts(), {.mtp_lambda = mtp_lambda}).total.backward();
    step.backward(std::move(output));
  }
  return step.finish();
}

// A whole parameter, or its gradient, from all ranks; they call it alike.
inline at::Tensor whole(const Model& model, const ParamSpec& spec, bool gradient = false) {
  return model.collect(spec, 0, spec.numel(), gradient).view(spec.shape);
}

// Copies of every gradient, master weight or router bias, one after the other.
inline std::vector<at::Tensor> gradients(const Model& model) {
  std::vector<at::Tensor> out;
  for (const auto& unit : model.flat_units()) out.push_back(unit->grad().clone());
  return out;
}
inline std::vector<at::Tensor> weights(Model& model) {
  std::vector<at::Tensor> out;
  for (const auto& unit : model.flat_units()) out.push_back(unit->master().clone());
  for (const RouterState& state : model.router_states()) out.push_back(state.bias_E.clone());
  return out;
}
inline std::vector<at::Tensor> counts(Model& model) {
  std::vector<at::Tensor> out;
  for (const RouterState& state : model.router_states()) out.push_back(state.count_E.clone());
  return out;
}
inline bool all_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const at::Tensor& x, const at::Tensor& y) { return x.equal(y); });
}
inline double worst_error(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, relative_error(a[i], b[i]));
  return worst;
}

}  // namespace dsv3::test
