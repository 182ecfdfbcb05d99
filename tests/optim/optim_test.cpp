// AdamW on flat shards, clipping, skipping, the router-bias rule and the schedules.
#include <gtest/gtest.h>

#include "dsv3/optim/schedule.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

using at::Tensor;
using test::Training;
using test::trajectory_run;

TEST(AdamW, DecaysMatricesAloneNeverNormsAndBiases) {
  Training training(trajectory_run({"train.dtype=fp64", "optim.weight_decay=0.5", "optim.clip=0"}));
  const Batch batch = training.loader.at(0, 1);
  Step step = training.model.begin_step(batch);  // gradients are zero
  const auto before = test::weights(training.model);
  training.optimizer.step(step.finish(), /*lr=*/0.1, /*gamma=*/0);
  int decayed = 0, kept = 0;
  for (size_t u = 0; u < training.model.flat_units().size(); ++u) {
    FlatUnit& unit = *training.model.flat_units()[u];
    for (auto& slot : unit.slots()) {
      const Tensor old = before[u].narrow(0, slot.offset, slot.spec->numel()).view(slot.spec->shape);
      const bool is_matrix = slot.spec->shape.size() > 1;
      const double factor = is_matrix ? 1 - 0.1 * 0.5 : 1.0;
      EXPECT_LE(test::relative_error(test::whole(training.model, *slot.spec), old * factor), 1e-15)
          << slot.spec->name;
      ++(is_matrix ? decayed : kept);
    }
  }
  EXPECT_GT(decayed, 10);
  EXPECT_GT(kept, 5);
}

// What stands between parameters and behind the last one is nobody's gradient and nobody's weight.
TEST(Norm, PaddingReachesNeitherTheNormNorAWeight) {
  Training clean(trajectory_run({"train.dtype=fp64"})), dirty(trajectory_run({"train.dtype=fp64"}));
  const Batch batch = clean.loader.at(0, 1);
  int64_t poisoned = 0;
  double norm[2];
  for (Training* training : {&clean, &dirty}) {
    const StepResult result = test::run_batch(training->model, batch);
    for (const auto& unit : training->model.flat_units()) {
      if (training == &clean) continue;
      Tensor padding = at::ones_like(unit->grad(), at::kBool);
      for (const auto& piece : unit->pieces()) padding.narrow(0, piece.offset, piece.count).fill_(false);
      poisoned += padding.sum().item<int64_t>();
      unit->grad().masked_fill_(padding, 1e30);
    }
    norm[training == &dirty] = training->optimizer.step(result, 1e-3, 0).grad_norm;
  }
  EXPECT_GT(poisoned, 0);
  EXPECT_EQ(norm[0], norm[1]);
  for (const ParamSpec& spec : clean.model.table().params)
    EXPECT_TRUE(test::whole(clean.model, spec).equal(test::whole(dirty.model, spec))) << spec.name;
}

TEST(AdamW, Bf16MomentsFollowFp32Ones) {
  Training wide(trajectory_run({"train.dtype=fp32"})),
      narrow(trajectory_run({"train.dtype=fp32", "optim.moments=bf16"}));
  for (int i = 0; i < 5; ++i) {
    wide.trainer.step();
    narrow.trainer.step();
  }
  Training start(trajectory_run({"train.dtype=fp32"}));
  const auto a = test::weights(wide.model), b = test::weights(narrow.model),
             from = test::weights(start.model);
  for (size_t u = 0; u < wide.model.flat_units().size(); ++u) {
    EXPECT_FALSE(a[u].equal(b[u]));  // the moments really are narrower
    EXPECT_LE(test::relative_error(b[u] - from[u], a[u] - from[u]), 0.05);
  }
}

TEST(Clip, OneNormOverEveryParameterSummedInFp64) {
  Training training(trajectory_run({"train.dtype=fp32"}));
  double squares = 0;
  for (const auto& unit : training.model.flat_units()) {
    unit->grad().fill_(1e-3f);
    for (const auto& piece : unit->pieces())
      squares += static_cast<double>(piece.count) * static_cast<double>(1e-3f) * static_cast<double>(1e-3f);
  }
  EXPECT_NEAR(gradient_norm(training.model), std::sqrt(squares), 1e-12 * std::sqrt(squares));
}

TEST(Skip, ANonFiniteStepLeavesWeightsMomentsAndBias) {
  Training training(trajectory_run({"train.dtype=fp64"})), clean(trajectory_run({"train.dtype=fp64"}));
  const Batch batch = training.loader.at(0, 2);
  const auto before = test::weights(training.model);
  StepResult result = test::run_batch(training.model, batch);
  training.model.flat_units()[1]->grad()[3] = NAN;
  EXPECT_TRUE(training.optimizer.step(result, 1e-2, 1e-2).skipped);
  EXPECT_TRUE(training.optimizer.step(test::run_batch(training.model, batch), 1e-2, 1e-2, false).skipped);
  EXPECT_TRUE(test::all_equal(test::weights(training.model), before));
  EXPECT_EQ(training.optimizer.updates(), 0);
  // Adam's t and the moments did not move either: the next update equals a first one.
  for (Training* t : {&training, &clean}) t->optimizer.step(test::run_batch(t->model, batch), 1e-2, 1e-2);
  EXPECT_TRUE(test::all_equal(test::weights(training.model), test::weights(clean.model)));
}

TEST(Skip, TheRunEndsWithExitCode4AfterTooManyInARow) {
  Training training(trajectory_run({"train.dtype=fp32", "train.max_bad_steps=3"}));
  training.model.flat_units()[0]->master().fill_(NAN);
  EXPECT_TRUE(training.trainer.step().skipped == 1);
  EXPECT_EQ(training.trainer.state().cursor, 2);
  EXPECT_EQ(training.trainer.state().tokens, 64);
  training.trainer.step();
  EXPECT_NO_THROW(training.trainer.check_progress());
  training.trainer.step();
  try {
    training.trainer.check_progress();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_steps);
  }
}

TEST(RouterBias, MovesAgainstTheLoadByGammaOnce) {
  RouterState state{.layer = 0, .bias_E = at::zeros({4}), .count_E = at::tensor({10, 2, 6, 6}, at::kLong)};
  update_router_bias(state, 0.001);
  EXPECT_TRUE(state.bias_E.allclose(at::tensor({-0.001f, 0.001f, 0.f, 0.f})));
}

TEST(Schedules, StepLinearCosineByTokensAndBySteps) {
  Schedule schedule;
  EXPECT_EQ(schedule_value(schedule, 7, 100, 1), 7);
  schedule.points = {{0, 1.0, "step"}, {100, 3.0, "linear"}, {200, 1.0, "cosine"}, {300, 0.5, "step"}};
  EXPECT_EQ(schedule_value(schedule, 7, 0, 0), 1);
  EXPECT_DOUBLE_EQ(schedule_value(schedule, 7, 50, 0), 2);
  EXPECT_DOUBLE_EQ(schedule_value(schedule, 7, 150, 0), 2);
  EXPECT_EQ(schedule_value(schedule, 7, 200, 0), 1);
  EXPECT_EQ(schedule_value(schedule, 7, 299, 0), 1);
  EXPECT_EQ(schedule_value(schedule, 7, 300, 0), 0.5);
  schedule.by_steps = true;
  EXPECT_DOUBLE_EQ(schedule_value(schedule, 7, 0, 50), 2);
  RunConfig run;
  run.optim.lr = 1;
  run.schedule.warmup_steps = 4;
  EXPECT_DOUBLE_EQ(learning_rate(run, 0, 1), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate(run, 0, 4), 1);
  EXPECT_DOUBLE_EQ(learning_rate(run, 0, 9), 1);
}

}  // namespace
}  // namespace dsv3
