// The explicit step: recomputation, accumulation, leaves, counters, dtypes.
#include "dsv3/parallel/step.h"

#include <gtest/gtest.h>

#include "support/runs.h"

namespace dsv3 {
namespace {

using at::Tensor;
using test::Training;
using test::trajectory_run;

TEST(Recompute, GradientsAndCountsAreBitEqual) {
  for (const char* dtype : {"fp32", "bf16"}) {
    const std::string in = std::string("train.dtype=") + dtype;
    Training plain(trajectory_run({in}));
    const Batch batch = plain.loader.at(0, 2);
    test::run_batch(plain.model, batch);
    for (const char* mode : {"block", "every:2", "attention", "moe"}) {
      Training other(trajectory_run({in, std::string("parallel.recompute=") + mode}));
      test::run_batch(other.model, batch);
      EXPECT_TRUE(test::all_equal(test::gradients(plain.model), test::gradients(other.model)))
          << mode << dtype;
      EXPECT_TRUE(test::all_equal(test::counts(plain.model), test::counts(other.model))) << mode << dtype;
    }
  }
}

TEST(Reshard, ChangesNoBit) {
  Training plain(trajectory_run({"train.dtype=bf16"}));
  const Batch batch = plain.loader.at(0, 2);
  test::run_batch(plain.model, batch);
  for (const char* when : {"after_forward", "never"}) {
    Training other(trajectory_run({"train.dtype=bf16", std::string("parallel.reshard=") + when}));
    test::run_batch(other.model, batch);
    EXPECT_TRUE(test::all_equal(test::gradients(plain.model), test::gradients(other.model))) << when;
  }
}

// Means of micro-batches of unequal size are not the mean of the batch: everything is a sum over global
// counts.
TEST(Accumulation, AnyCutOfABatchGivesItsGradient) {
  Training training(trajectory_run({"train.dtype=fp64", "train.global_batch=4", "train.micro_batch=4"}));
  Batch whole = training.loader.at(0, 4);
  Tensor& targets = whole.micro[0].targets_BS;
  targets[0].slice(0, 0, 25).fill_(kIgnoredTarget);
  targets[2].fill_(kIgnoredTarget);
  test::run_batch(training.model, whole);
  const auto expected = test::gradients(training.model), counts = test::counts(training.model);
  for (std::vector<int64_t> cut : {std::vector<int64_t>{1, 3}, {2, 2}, {1, 1, 1, 1}}) {
    Batch parts;
    int64_t row = 0;
    for (int64_t rows : cut) {
      MicroBatch micro;
      micro.tokens_BS = whole.micro[0].tokens_BS.narrow(0, row, rows);
      micro.targets_BS = targets.narrow(0, row, rows);
      parts.micro.push_back(micro);
      row += rows;
    }
    test::run_batch(training.model, parts);
    EXPECT_LE(test::worst_error(test::gradients(training.model), expected), 1e-12);
    EXPECT_TRUE(test::all_equal(test::counts(training.model), counts));
  }
}

TEST(Counts, LeaveOutPaddingAndTheTailOfMtp) {
  Training training(trajectory_run());
  const ModelConfig& config = training.model.config();
  for (int64_t tokens : {20, 32}) {  // 32: no padding, so the tail alone is left out
    Batch batch = training.loader.at(0, 1);
    MicroBatch& micro = batch.micro[0];
    if (tokens < micro.tokens_BS.size(1)) {
      micro.padding_BS = at::ones_like(micro.tokens_BS).to(at::kBool);
      micro.padding_BS.slice(1, tokens).fill_(false);
    }
    test::run_batch(training.model, batch);
    for (const RouterState& state : training.model.router_states()) {
      const int64_t depth = std::max<int64_t>(0, state.layer - config.num_hidden_layers + 1);
      EXPECT_EQ(state.count_E.sum().item<int64_t>(), (tokens - depth) * config.num_experts_per_tok)
          << state.layer;
    }
  }
}

TEST(Leaves, AnUndefinedGradientIsZeroAndTheBalanceLossIsAddedAlone) {
  Training training(trajectory_run({"train.dtype=fp64", "balance.alpha=0"}));
  const Batch batch = training.loader.at(0, 1);
  Step step = training.model.begin_step(batch);
  step.backward(step.forward(batch.micro[0]));
  EXPECT_EQ(gradient_norm(training.model), 0);
  Training balanced(trajectory_run({"train.dtype=fp64", "balance.alpha=0.5"}));
  Step other = balanced.model.begin_step(batch);
  other.backward(other.forward(batch.micro[0]));
  EXPECT_GT(gradient_norm(balanced.model), 0);
}

TEST(Leaves, SeveralOutputsMayBeAliveAtOnce) {
  Training training(trajectory_run({"train.dtype=fp64"}));
  const Batch batch = training.loader.at(0, 2);  // two micro-batches of one
  test::run_batch(training.model, batch);
  const auto expected = test::gradients(training.model);
  Step step = training.model.begin_step(batch);
  Output first = step.forward(batch.micro[0]), second = step.forward(batch.micro[1]);
  (standard_loss(first, step.counts(), {.mtp_lambda = 0.3}).total +
   standard_loss(second, step.counts(), {.mtp_lambda = 0.3}).total)
      .backward();
  step.backward(std::move(second));
  step.backward(std::move(first));
  EXPECT_LE(test::worst_error(test::gradients(training.model), expected), 1e-13);
}

// Central differences through a hidden state and a loss over the whole vocabulary.
TEST(Leaves, HiddenStatesAndVocabularyLossesCarryGradients) {
  Training training(trajectory_run({"train.dtype=fp64", "balance.alpha=0"}));
  const Batch batch = training.loader.at(0, 1);
  const ForwardOptions options{
      .hidden = {0},
      .vocab = [](const Tensor& logits, int64_t) { return logits.softmax(-1).square().sum(-1); },
      .logits = false,
      .routing = false};
  auto loss = [&](const Output& out) { return out.hidden.at(0).square().sum() * 0.1 + out.extra_BS.sum(); };
  Step step = training.model.begin_step(batch);
  Output output = step.forward(batch.micro[0], options);
  loss(output).backward();
  step.backward(std::move(output));
  FlatUnit& embedding = *training.model.flat_units()[0];
  const int64_t row = batch.micro[0].tokens_BS[0][3].item<int64_t>();
  const int64_t index = row * training.model.config().hidden_size + 1;
  const double grad = embedding.grad()[index].item<double>();
  const double eps = 1e-6;
  double side[2];
  for (int s : {0, 1}) {
    embedding.master()[index] += s ? eps : -eps;
    at::NoGradGuard no_grad;
    side[s] = loss(training.model.evaluate(batch.micro[0], options)).item<double>();
    embedding.master()[index] += s ? -eps : eps;
  }
  EXPECT_NEAR(grad, (side[1] - side[0]) / (2 * eps), 1e-6 * std::max(1.0, std::abs(grad)));
}

TEST(Freeze, FrozenParametersHaveNoGradientAndChangeNoOthers) {
  Training plain(trajectory_run({"train.dtype=fp64"}));
  Training frozen(
      trajectory_run({"train.dtype=fp64",
                      "optim.freeze=[\"*experts*\", \"model.embed_tokens.weight\", \"*q_a_layernorm*\"]"}));
  const Batch batch = plain.loader.at(0, 2);
  test::run_batch(plain.model, batch);
  test::run_batch(frozen.model, batch);
  int frozen_count = 0;
  for (const auto& unit : frozen.model.flat_units())
    for (const auto& slot : unit->slots()) {
      if (!unit->trainable()) {
        EXPECT_FALSE(slot.param.grad.defined()) << slot.spec->name;
        EXPECT_EQ(unit->grad().numel(), 0);
        ++frozen_count;
      } else {
        EXPECT_TRUE(
            test::whole(frozen.model, *slot.spec, true).equal(test::whole(plain.model, *slot.spec, true)))
            << slot.spec->name;
      }
    }
  EXPECT_GT(frozen_count, 5);
}

// docs/design.md, the table of dtypes.
TEST(Dtypes, EachQuantityHasItsOwn) {
  for (auto [name, dtype] : {std::pair("fp32", at::kFloat), {"bf16", at::kBFloat16}, {"fp64", at::kDouble}}) {
    Training training(trajectory_run({std::string("train.dtype=") + name}));
    const Batch batch = training.loader.at(0, 1);
    const auto wide = at_least_fp32(dtype);
    for (const auto& unit : training.model.flat_units()) {
      EXPECT_EQ(unit->master().scalar_type(), wide);
      EXPECT_EQ(unit->grad().scalar_type(), wide);
      Unsharded unsharded({unit.get()});
      for (auto& slot : unit->slots()) EXPECT_EQ(slot.param.data.scalar_type(), dtype) << slot.spec->name;
    }
    for (const RouterState& state : training.model.router_states()) {
      EXPECT_EQ(state.bias_E.scalar_type(), wide);
      EXPECT_EQ(state.count_E.scalar_type(), at::kLong);
    }
    Step step = training.model.begin_step(batch);
    const Output out =
        step.forward(batch.micro[0], {.hidden = {0}, .vocab = {}, .logits = true, .routing = true});
    EXPECT_EQ(out.hidden.at(0).scalar_type(), dtype);  // the residual stream
    EXPECT_EQ(out.logits_BSV.scalar_type(), dtype);
    EXPECT_EQ(out.logp_BS.scalar_type(), wide);
    EXPECT_EQ(out.balance_loss.scalar_type(), wide);
    for (const auto& [layer, routing] : out.routing) {
      EXPECT_EQ(routing.weight_TK.scalar_type(), wide) << layer;
      EXPECT_EQ(routing.scores_TE.scalar_type(), wide) << layer;
    }
    const PassContext pass = training.model.pass_context(batch.micro[0]);
    EXPECT_EQ(pass.rope.cos.scalar_type(), wide);
    EXPECT_EQ(pass.rope.sin.scalar_type(), wide);
    for (const char* moments : {"fp32", "bf16"}) {
      OptimConfig config = training.run.optim;
      config.moments = moments;
      const Optimizer optimizer(training.model, config);
      const auto expected = config.moments == "bf16" && wide == at::kFloat ? at::kBFloat16 : wide;
      for (const auto& unit : optimizer.moments()) {
        EXPECT_EQ(unit.first.scalar_type(), expected);
        EXPECT_EQ(unit.second.scalar_type(), expected);
      }
    }
  }
}

// Every kind of start: deviation, mean, ones, zeros, the row of padding; and layers that the frequency leaves
// dense.
TEST(Initialise, FollowsTheConfiguration) {
  Training training(trajectory_run({"model.init=", "model.hidden_size=256", "model.initializer_range=0.05",
                                    "model.num_hidden_layers=4", "model.moe_layer_freq=2",
                                    "model.pad_token_id=3", "train.seed=5"}));
  Model& model = training.model;
  int normals = 0, moe = 0;
  for (const ParamSpec& spec : model.table().params) {
    const at::Tensor values = test::whole(model, spec).to(at::kDouble);
    moe += spec.role == Role::router_bias ? 1 : 0;
    if (spec.init != InitKind::normal) {
      EXPECT_TRUE(values.eq(spec.init == InitKind::ones ? 1 : 0).all().item<bool>()) << spec.name;
      continue;
    }
    ++normals;
    at::Tensor drawn = values;
    if (spec.role == Role::embed_tokens) {
      const int64_t pad = *model.config().pad_token_id;
      EXPECT_EQ(values[pad].abs().max().item<double>(), 0);
      drawn = at::cat({values.narrow(0, 0, pad), values.narrow(0, pad + 1, values.size(0) - pad - 1)});
    }
    const double n = static_cast<double>(drawn.numel()), deviation = 0.05;
    EXPECT_NEAR(drawn.mean().item<double>(), 0, 5 * deviation / std::sqrt(n)) << spec.name;
    EXPECT_NEAR(drawn.square().mean().sqrt().item<double>(), deviation, 5 * deviation / std::sqrt(2 * n))
        << spec.name;
  }
  EXPECT_GT(normals, 20);
  // Layers 0 (first_k_dense_replace), 1 and 3 are dense: 2 and the MTP module's, layer 4, have experts.
  EXPECT_EQ(moe, 2);
  const StepMetrics metrics = training.trainer.step();
  EXPECT_NEAR(metrics.lm_loss, std::log(static_cast<double>(model.config().vocab_size)), 1.0);
  ASSERT_EQ(metrics.load.size(), 2u);
  EXPECT_EQ(metrics.load[0].layer, 2);
  EXPECT_EQ(metrics.load[1].layer, 4);
}

// The losses of the first depths don't depend on how many follow.
TEST(Mtp, DepthThreeContinuesDepthTwo) {
  std::vector<std::vector<double>> losses;
  for (const char* depth : {"2", "3"}) {
    Training training(trajectory_run(
        {"model.init=", "train.dtype=fp64", std::string("model.num_nextn_predict_layers=") + depth}));
    const Batch batch = training.loader.at(0, 1);
    Step step = training.model.begin_step(batch);
    Output output = step.forward(batch.micro[0]);
    const Losses all = standard_loss(output, step.counts(), {.mtp_lambda = 0.3});
    std::vector<double>& of = losses.emplace_back();
    of.push_back(all.lm.item<double>());
    for (const at::Tensor& loss : all.mtp) of.push_back(loss.item<double>());
  }
  ASSERT_EQ(losses[1].size(), 4u);
  for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(losses[1][k], losses[0][k], 1e-12) << k;
  EXPECT_GT(losses[1][3], 0);
}

TEST(FlatUnit, ParametersAre64ByteAlignedAndRangesCoverThem) {
  Training training(trajectory_run({"train.dtype=bf16", "optim.freeze=[\"*kv_b_proj*\"]"}));
  for (const auto& unit : training.model.flat_units()) {
    Unsharded unsharded({unit.get()});
    int64_t end = 0;
    for (const auto& range : unit->ranges()) {
      EXPECT_GE(range.begin, end);
      EXPECT_LT(range.begin - end, 32);  // the padding behind the range before
      end = range.end;
    }
    for (auto& slot : unit->slots()) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(slot.param.data.const_data_ptr()) % 64, 0u) << slot.spec->name;
      int covered = 0;
      for (const auto& range : unit->ranges())
        if (slot.offset >= range.begin && slot.offset + slot.numel <= range.end &&
            range.decay == slot.spec->decay)
          ++covered;
      EXPECT_EQ(covered, 1) << slot.spec->name;
    }
  }
}

}  // namespace
}  // namespace dsv3
