// Any layout trains like one process: the same global batches on real text in fp64, step by step.
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <numeric>
#include <set>

#include "parallel/layout_cases.h"
#include "parallel/layout_run.h"

namespace dsv3 {
namespace {

using at::Tensor;
using test::expect_same;
using test::Record;
using test::train_alone;
using test::train_on;
using test::Training;
using test::trajectory_run;
using test::with;

using Case = test::LayoutCase;

TEST(LayoutCases, CrossPairwise) {
  // The layout crosses the three columns behind it; all others cross each other.
  auto crossed = [](size_t a, size_t b) { return a > 0 || b <= 3; };
  std::vector<std::set<std::string>> values(test::layout_cases()[0].columns().size());
  std::set<std::pair<std::string, std::string>> pairs;
  for (const Case& test : test::layout_cases()) {
    const std::vector<std::string> columns = test.columns();
    for (size_t a = 0; a < columns.size(); ++a) {
      values[a].insert(columns[a]);
      for (size_t b = a + 1; b < columns.size(); ++b)
        if (crossed(a, b)) pairs.emplace(columns[a], columns[b]);
    }
  }
  size_t all = 0;
  for (size_t a = 0; a < values.size(); ++a)
    for (size_t b = a + 1; b < values.size(); ++b)
      if (crossed(a, b)) all += values[a].size() * values[b].size();
  EXPECT_EQ(pairs.size(), all);
  // Gradients that stay whole over several micro-batches, and are then summed over replicas, or are not.
  std::set<int64_t> replicas;
  for (const Case& test : test::layout_cases())
    if (std::string(test.accumulate) == "unsharded" && test.micro_batches() >= 2)
      replicas.insert(test.layout.replicate);
  EXPECT_EQ(replicas, (std::set<int64_t>{1, 2}));
}

class Layouts : public testing::TestWithParam<Case> {};

// Gradients are compared at the first step and at the last.
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

// A layout changes no rounding to bf16: those are of a token's own rows, and sums over tokens are in fp32, as
// in the test above. But for one: ATen rounds the product that is an expert's gradient, over the rows that
// arrive together, which a layout with ep gathers from several ranks. Two roundings of half a unit in the
// last place of 8 bits, one on each side, are 2^-8.
TEST_P(Layouts, FirstStepInBf16) {
  const std::vector<std::string> flags = with(GetParam().flags(), {"train.dtype=bf16"});
  Record alone = train_alone(flags, 1);
  const Record ours = train_on(GetParam().layout, flags, 1);
  if (test::backend() == Backend::aten) {
    auto of_experts = [](const auto& named) { return named.first.find(".experts.") != std::string::npos; };
    std::map<std::string, Tensor> experts = alone.first_gradients;
    std::erase_if(experts, std::not_fn(of_experts));
    expect_same(ours.first_gradients, experts, 0x1p-8);
    std::erase_if(alone.first_gradients, of_experts);
  }
  alone.last_gradients.clear();  // the first ones
  alone.weights.clear();
  expect_same(ours, alone, 1e-6, 2e-6);
}

// Results arrive in a random order, are NaN until then, and inputs may not change before the wait: the races
// that streams of a GPU would have.
TEST_P(Layouts, SurviveChaos) {
  // In bf16 what is sent by an all-gather is a copy of the master that only the collective holds.
  for (const char* dtype : {"fp64", "bf16"}) {
    SCOPED_TRACE(dtype);
    const auto flags = with(GetParam().flags(), {std::string("train.dtype=") + dtype});
    const Record calm = train_on(GetParam().layout, flags, 2);
    const Record chaos = train_on(GetParam().layout, flags, 2, {.chaos = true});
    EXPECT_EQ(chaos.losses, calm.losses);
    EXPECT_EQ(chaos.norms, calm.norms);
    for (const auto& [name, tensor] : calm.weights) EXPECT_TRUE(chaos.weights.at(name).equal(tensor)) << name;
  }
}

// The same for as long as errors would take to grow. Minutes: `make test-full` asks for it.
TEST(LongLayouts, TrainLikeOneProcessForAHundredSteps) {
  if (std::getenv("DSV3_LONG_TESTS") == nullptr) GTEST_SKIP() << "DSV3_LONG_TESTS is not set";
  for (const size_t row : {2, 7, 19}) {  // (1, 2, 2), (1, 4, 2) and (2, 4, 2)
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
