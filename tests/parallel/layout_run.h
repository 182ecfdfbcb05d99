#pragma once
// A training on one process or on a layout, and whether two of them are the same.

#include <gtest/gtest.h>

#include "support/ranks.h"
#include "support/runs.h"

namespace dsv3::test {

// What training left behind, whole, and what it said on the way.
struct Record {
  std::vector<double> losses, norms;
  std::vector<int64_t> counts;  // of every router and step
  std::vector<double> biases;   // of every router at the end: the same bits
  std::map<std::string, at::Tensor> weights, first_gradients, last_gradients;  // gradients: of those steps
};

inline Record train(const RunConfig& run, const Mesh& mesh, int steps) {
  Training training(run, mesh);
  Record record;
  auto gradients = [&] {
    std::map<std::string, at::Tensor> out;
    for (const ParamSpec& spec : training.model.table().params)
      if (spec.trainable) out[spec.name] = whole(training.model, spec, true).clone();
    return out;
  };
  for (int step = 0; step < steps; ++step) {
    const StepMetrics metrics = training.trainer.step();
    record.losses.insert(record.losses.end(),
                         {metrics.loss, metrics.lm_loss, metrics.mtp_loss, metrics.balance_loss});
    record.norms.push_back(metrics.grad_norm);
    for (RouterState& state : training.model.router_states())
      for (int64_t e = 0; e < state.count_E.numel(); ++e)
        record.counts.push_back(state.count_E[e].item<int64_t>());
    if (step == 0) record.first_gradients = gradients();
  }
  record.last_gradients = gradients();
  for (const ParamSpec& spec : training.model.table().params)
    record.weights[spec.name] = whole(training.model, spec).clone();
  for (const RouterState& state : training.model.router_states())
    for (int64_t e = 0; e < state.bias_E.numel(); ++e)
      record.biases.push_back(state.bias_E[e].item<double>());
  return record;
}

inline std::vector<std::string> with(std::vector<std::string> flags, const std::vector<std::string>& more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

// One process, one thread: what all layouts are held against.
inline Record train_alone(const std::vector<std::string>& flags, int steps) {
  Record record;
  std::thread([&] {
    omp_set_num_threads(1);
    record = train(trajectory_run(flags), Mesh::create({}), steps);
  }).join();
  return record;
}

// The record of rank 0; the others have to say the same numbers.
inline Record train_on(const MeshLayout& layout, std::vector<std::string> flags, int steps,
                       const RankOptions& options = {}) {
  flags.insert(flags.end(), {"parallel.replicate=" + std::to_string(layout.replicate),
                             "parallel.shard=" + std::to_string(layout.shard),
                             "parallel.ep=" + std::to_string(layout.ep)});
  const RunConfig run = trajectory_run(flags);
  std::vector<Record> records(layout.world());
  run_ranks(
      layout, [&](const Mesh& mesh) { records[mesh.rank()] = train(run, mesh, steps); }, options);
  for (const Record& other : records) {
    EXPECT_EQ(other.losses, records[0].losses);
    EXPECT_EQ(other.norms, records[0].norms);
    EXPECT_EQ(other.counts, records[0].counts);
  }
  return records[0];
}

// Every tensor as one vector; what is smaller than a millionth of all is held to that.
inline void expect_same(const std::map<std::string, at::Tensor>& ours,
                        const std::map<std::string, at::Tensor>& theirs, double tolerance) {
  double squares = 0;
  for (const auto& [name, tensor] : theirs) squares += tensor.square().sum().item<double>();
  for (const auto& [name, tensor] : theirs)
    EXPECT_LE(relative_error(ours.at(name), tensor, 1e-6 * std::sqrt(squares)), tolerance) << name;
}

inline void expect_same(const Record& ours, const Record& theirs, double tolerance,
                        double gradient_tolerance) {
  ASSERT_EQ(ours.losses.size(), theirs.losses.size());
  for (size_t i = 0; i < ours.losses.size(); ++i)
    EXPECT_LE(std::abs(ours.losses[i] - theirs.losses[i]), tolerance * std::abs(theirs.losses[i])) << i;
  for (size_t i = 0; i < ours.norms.size(); ++i)
    EXPECT_LE(std::abs(ours.norms[i] - theirs.norms[i]), tolerance * theirs.norms[i]) << i;
  EXPECT_EQ(ours.counts, theirs.counts);
  EXPECT_EQ(ours.biases, theirs.biases);
  expect_same(ours.first_gradients, theirs.first_gradients, gradient_tolerance);
  expect_same(ours.last_gradients, theirs.last_gradients, gradient_tolerance);
  expect_same(ours.weights, theirs.weights, tolerance);
}

}  // namespace dsv3::test
