// Any layout trains like one process: the same global batches on real text in fp64, step by step.
#include <gtest/gtest.h>

#include <mutex>
#include <numeric>
#include <set>

#include "parallel/layout_cases.h"
#include "support/ranks.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

using at::Tensor;
using test::Training;
using test::trajectory_run;

// What training left behind, whole, and what it said on the way.
struct Record {
  std::vector<double> losses, norms;
  std::vector<int64_t> counts;                       // of every router and step
  std::vector<double> biases;                        // of every router at the end: the same bits
  std::map<std::string, Tensor> weights, gradients;  // gradients: of the first step
};

Record train(const RunConfig& run, const Mesh& mesh, int steps) {
  Training training(run, mesh);
  Record record;
  for (int step = 0; step < steps; ++step) {
    const StepMetrics metrics = training.trainer.step();
    record.losses.insert(record.losses.end(),
                         {metrics.loss, metrics.lm_loss, metrics.mtp_loss, metrics.balance_loss});
    record.norms.push_back(metrics.grad_norm);
    for (RouterState& state : training.model.router_states())
      for (int64_t e = 0; e < state.count_E.numel(); ++e)
        record.counts.push_back(state.count_E[e].item<int64_t>());
    if (step == 0)
      for (const ParamSpec& spec : training.model.table().params)
        if (spec.trainable) record.gradients[spec.name] = test::whole(training.model, spec, true).clone();
  }
  for (const ParamSpec& spec : training.model.table().params)
    record.weights[spec.name] = test::whole(training.model, spec).clone();
  for (const RouterState& state : training.model.router_states())
    for (int64_t e = 0; e < state.bias_E.numel(); ++e)
      record.biases.push_back(state.bias_E[e].item<double>());
  return record;
}

std::vector<std::string> with(std::vector<std::string> flags, const std::vector<std::string>& more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

// One process, one thread: what all layouts are held against.
Record train_alone(const std::vector<std::string>& flags, int steps) {
  Record record;
  std::thread([&] {
    omp_set_num_threads(1);
    record = train(trajectory_run(flags), Mesh::create({}), steps);
  }).join();
  return record;
}

// The record of rank 0; the others have to say the same numbers.
Record train_on(const MeshLayout& layout, std::vector<std::string> flags, int steps,
                const test::RankOptions& options = {}) {
  flags.insert(flags.end(), {"parallel.replicate=" + std::to_string(layout.replicate),
                             "parallel.shard=" + std::to_string(layout.shard),
                             "parallel.ep=" + std::to_string(layout.ep)});
  const RunConfig run = trajectory_run(flags);
  std::vector<Record> records(layout.world());
  test::run_ranks(
      layout, [&](const Mesh& mesh) { records[mesh.rank()] = train(run, mesh, steps); }, options);
  for (const Record& other : records) {
    EXPECT_EQ(other.losses, records[0].losses);
    EXPECT_EQ(other.norms, records[0].norms);
    EXPECT_EQ(other.counts, records[0].counts);
  }
  return records[0];
}

void expect_same(const std::map<std::string, Tensor>& ours, const std::map<std::string, Tensor>& theirs,
                 double tolerance) {
  double squares = 0;
  for (const auto& [name, tensor] : theirs) squares += tensor.square().sum().item<double>();
  for (const auto& [name, tensor] : theirs)
    EXPECT_LE(test::relative_error(ours.at(name), tensor, 1e-6 * std::sqrt(squares)), tolerance) << name;
}

void expect_same(const Record& ours, const Record& theirs, double tolerance, double gradient_tolerance) {
  ASSERT_EQ(ours.losses.size(), theirs.losses.size());
  for (size_t i = 0; i < ours.losses.size(); ++i)
    EXPECT_LE(std::abs(ours.losses[i] - theirs.losses[i]), tolerance * std::abs(theirs.losses[i])) << i;
  for (size_t i = 0; i < ours.norms.size(); ++i)
    EXPECT_LE(std::abs(ours.norms[i] - theirs.norms[i]), tolerance * theirs.norms[i]) << i;
  EXPECT_EQ(ours.counts, theirs.counts);
  EXPECT_EQ(ours.biases, theirs.biases);
  expect_same(ours.gradients, theirs.gradients, gradient_tolerance);
  expect_same(ours.weights, theirs.weights, tolerance);
}

using Case = test::LayoutCase;

TEST(LayoutCases, CrossPairwise) {
  std::vector<std::set<std::string>> values(9);
  std::set<std::pair<std::string, std::string>> pairs;
  for (const Case& test : test::layout_cases()) {
    const std::vector<std::string> columns = test.columns();
    for (size_t a = 0; a < columns.size(); ++a) {
      values[a].insert(columns[a]);
      for (size_t b = a + 1; b < columns.size(); ++b) pairs.emplace(columns[a], columns[b]);
    }
  }
  size_t all = 0;
  for (size_t a = 0; a < values.size(); ++a)
    for (size_t b = a + 1; b < values.size(); ++b) all += values[a].size() * values[b].size();
  EXPECT_EQ(pairs.size(), all);
}

class Layouts : public testing::TestWithParam<Case> {};

TEST_P(Layouts, TrainLikeOneProcessInFp64) {
  const std::vector<std::string> flags = with(GetParam().flags(), {"train.dtype=fp64"});
  const Record alone = train_alone(flags, 10);
  expect_same(train_on(GetParam().layout, flags, 10), alone, 1e-10, 1e-9);
}

TEST_P(Layouts, FirstStepInFp32) {
  const std::vector<std::string> flags = with(GetParam().flags(), {"train.dtype=fp32"});
  Record alone = train_alone(flags, 1);
  Record ours = train_on(GetParam().layout, flags, 1);
  alone.weights.clear();  // AdamW's first step is a sign: tiny gradients decide
  expect_same(ours, alone, 1e-6, 2e-6);
}

// Results arrive in a random order, are NaN until then, and inputs may not change before the wait: the races
// that streams of a GPU would have.
TEST_P(Layouts, SurviveChaos) {
  const std::vector<std::string> flags = with(GetParam().flags(), {"train.dtype=fp64"});
  const Record calm = train_on(GetParam().layout, flags, 2);
  const Record chaos = train_on(GetParam().layout, flags, 2, {.chaos = true});
  EXPECT_EQ(chaos.losses, calm.losses);
  EXPECT_EQ(chaos.norms, calm.norms);
  for (const auto& [name, tensor] : calm.weights) EXPECT_TRUE(chaos.weights.at(name).equal(tensor)) << name;
}

// The same for as long as errors would take to grow. Minutes: `make test-full` asks for it.
TEST(LongLayouts, TrainLikeOneProcessForAHundredSteps) {
  if (std::getenv("DSV3_LONG_TESTS") == nullptr) GTEST_SKIP() << "DSV3_LONG_TESTS is not set";
  for (const size_t row : {1, 6, 9}) {  // (1, 2, 2), (2, 4, 2) and (1, 4, 2)
    const Case& test = test::layout_cases()[row];
    SCOPED_TRACE(test.name());
    const std::vector<std::string> flags = with(test.flags(), {"train.dtype=fp64", "train.steps=100"});
    expect_same(train_on(test.layout, flags, 100), train_alone(flags, 100), 1e-10, 1e-9);
  }
}

// One rank's loss is NaN: all skip alike, nothing moves, and the next step is as if that one had not been.
TEST(Skip, ANaNOnOneRankSkipsOnAll) {
  const RunConfig run =
      trajectory_run({"model.init=", "train.global_batch=4", "parallel.shard=4", "parallel.ep=2"});
  std::vector<std::vector<Tensor>> after(4);
  test::run_ranks({.replicate = 1, .shard = 4, .ep = 2}, [&](const Mesh& mesh) {
    Training training(run, mesh);
    training.trainer.step();
    const auto before = test::weights(training.model);
    const Batch batch = training.loader.at(4, 4);
    Step step = training.model.begin_step(batch);
    for (const MicroBatch& micro : batch.micro) {
      Output output = step.forward(micro);
      const Tensor loss = standard_loss(output, step.counts(), {.mtp_lambda = 0.3}).total;
      (mesh.rank() == 2 ? loss * std::numeric_limits<double>::quiet_NaN() : loss).backward();
      step.backward(std::move(output));
    }
    const StepInfo info = training.optimizer.step(step.finish(), 1e-2, 1e-2);
    EXPECT_TRUE(info.skipped);
    EXPECT_TRUE(test::all_equal(test::weights(training.model), before));
    EXPECT_EQ(training.optimizer.updates(), 1);
    training.trainer.step();
    after[mesh.rank()] = test::weights(training.model);
  });
  test::run_ranks({.replicate = 1, .shard = 4, .ep = 2}, [&](const Mesh& mesh) {
    Training training(run, mesh);
    training.trainer.step();
    training.trainer.step();
    EXPECT_TRUE(test::all_equal(test::weights(training.model), after[mesh.rank()]));
  });
}

// A rank holds its part of every buffer and no more: of n elements and padding, in a group of r ranks,
// ceil(n / 32 r) · 32.
TEST(State, OfARankIsItsShareAndPadding) {
  constexpr int64_t kAlign = 32;
  const RunConfig run = trajectory_run({"model.init=", "parallel.shard=4", "parallel.ep=2"});
  std::vector<int64_t> parameters(4);
  test::run_ranks({.replicate = 1, .shard = 4, .ep = 2}, [&](const Mesh& mesh) {
    Training training(run, mesh);
    std::map<const FlatUnit*, int64_t> moments;
    for (const Optimizer::Moments& of_unit : training.optimizer.moments())
      moments[of_unit.unit] = of_unit.first.numel() + of_unit.second.numel();
    for (const auto& unit : training.model.flat_units()) {
      const bool experts = unit->slots()[0].spec->group == ParamGroup::expert;
      const int64_t ranks = experts ? mesh.expert_data().size() : mesh.data().size();
      int64_t elements = 0;
      for (const FlatUnit::Slot& slot : unit->slots())
        elements += (slot.spec->numel() / (experts ? 2 : 1) + kAlign - 1) / kAlign * kAlign;
      const int64_t share = (elements + kAlign * ranks - 1) / (kAlign * ranks) * kAlign;
      EXPECT_EQ(unit->master().numel(), share) << unit->name();
      EXPECT_EQ(unit->grad().numel(), share) << unit->name();
      EXPECT_EQ(moments[unit.get()], 2 * share) << unit->name();
      for (const FlatUnit::Piece& piece : unit->pieces()) parameters[mesh.rank()] += piece.count;
    }
  });
  int64_t all = 0;
  for (const ParamSpec& spec : param_table(run.model).params) all += spec.trainable ? spec.numel() : 0;
  EXPECT_EQ(std::accumulate(parameters.begin(), parameters.end(), int64_t{0}), all);
}

// The experts of each token, by the tokens of its sequence, in every router.
TEST(Routing, ChoosesTheSameExpertsOnAnyLayout) {
  using Choices = std::map<std::pair<int64_t, std::vector<int64_t>>, std::vector<int64_t>>;
  auto numbers = [](const Tensor& x) {
    const Tensor flat = x.contiguous();
    return std::vector<int64_t>(flat.const_data_ptr<int64_t>(),
                                flat.const_data_ptr<int64_t>() + flat.numel());
  };
  auto choices_of = [&](const MeshLayout& layout) {
    const RunConfig run = trajectory_run({"model.init=", "train.dtype=fp32", "train.micro_batch=1",
                                          "parallel.shard=" + std::to_string(layout.shard),
                                          "parallel.ep=" + std::to_string(layout.ep)});
    Choices choices;
    std::mutex mutex;
    test::run_ranks(layout, [&](const Mesh& mesh) {
      Training training(run, mesh);
      Batch batch = training.loader.at(0, 8);
      Step step = training.model.begin_step(batch);
      for (const MicroBatch& micro : batch.micro) {
        const Output output = step.forward(micro, {.routing = true});
        std::lock_guard lock(mutex);
        for (const auto& [layer, routing] : output.routing)
          choices[{layer, numbers(micro.tokens_BS)}] = numbers(routing.ids_TK);
      }
      training.model.abort_step();
    });
    return choices;
  };
  const Choices alone = choices_of({1, 1, 1});
  EXPECT_EQ(alone.size(), 16u);  // 8 sequences, a MoE block and MTP's
  for (const MeshLayout& layout : {MeshLayout{1, 2, 2}, MeshLayout{1, 4, 2}, MeshLayout{1, 4, 4}})
    EXPECT_EQ(choices_of(layout), alone);
}

// Against the gradients themselves: both sides of a comparison of layouts would share a mistake.
TEST(GradientNorm, CountsEveryParameterOfEveryRankOnce) {
  const RunConfig run =
      trajectory_run({"model.init=", "train.dtype=fp64", "parallel.shard=2", "parallel.ep=2"});
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 2}, [&](const Mesh& mesh) {
    Training training(run, mesh);
    test::run_batch(training.model, training.loader.at(0, 4));
    double squares = 0;
    for (const ParamSpec& spec : training.model.table().params)
      if (spec.trainable) squares += test::whole(training.model, spec, true).square().sum().item<double>();
    EXPECT_NEAR(gradient_norm(training.model), std::sqrt(squares), 1e-12 * std::sqrt(squares));
  });
}

// An error in the middle of a step: after abort_step() the model trains on as if the step had not begun.
TEST(AbortStep, LeavesAModelThatTrainsOn) {
  const RunConfig run = trajectory_run({"model.init=", "train.global_batch=4", "parallel.shard=2"});
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 1}, [&](const Mesh& mesh) {
    Training training(run, mesh), other(run, mesh);
    const Batch batch = training.loader.at(0, 4);
    {
      Step step = training.model.begin_step(batch);
      Output first = step.forward(batch.micro[0]);
      standard_loss(first, step.counts(), {}).total.backward();
      step.backward(std::move(first));
      const Output second = step.forward(batch.micro[1]);
      training.model.abort_step();
    }
    for (int i = 0; i < 2; ++i) EXPECT_EQ(training.trainer.step().loss, other.trainer.step().loss);
    EXPECT_TRUE(test::all_equal(test::weights(training.model), test::weights(other.model)));
  });
}

// A step that is given up with its gradients whole leaves nothing to the next one.
TEST(AbortStep, ASkippedStepLeavesNoGradientBehind) {
  const RunConfig run = trajectory_run(
      {"model.init=", "train.global_batch=4", "parallel.shard=2", "parallel.accumulate=unsharded"});
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 1}, [&](const Mesh& mesh) {
    Training training(run, mesh), other(run, mesh);
    const Batch batch = training.loader.at(0, 4);
    {
      Step step = training.model.begin_step(batch);
      Output output = step.forward(batch.micro[0]);
      standard_loss(output, step.counts(), {}).total.backward();
      step.backward(std::move(output));
    }
    EXPECT_EQ(training.trainer.step().grad_norm, other.trainer.step().grad_norm);
  });
}

// Its weights would stay those of before the update, in some layouts and not in others.
TEST(Leaves, AnOutputThatOutlivesItsStepIsRefused) {
  Training training(trajectory_run());
  const Batch batch = training.loader.at(0, 1);
  Step step = training.model.begin_step(batch);
  Output kept = step.forward(batch.micro[0]);
  const StepResult result = step.finish();
  EXPECT_THROW(training.optimizer.step(result, 1e-3, 0), std::logic_error);
  kept = {};
  training.optimizer.step(result, 1e-3, 0);
}

INSTANTIATE_TEST_SUITE_P(Mesh, Layouts, testing::ValuesIn(test::layout_cases()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace dsv3
