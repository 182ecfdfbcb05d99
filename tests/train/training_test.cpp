// Training as a whole: the trajectory of transformers + torch.optim.AdamW, determinism, evaluation, learning.
#include <gtest/gtest.h>

#include <fstream>

#include "dsv3/base/error.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/train/generate.h"
#include "support/files.h"
#include "support/ranks.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

using at::Tensor;
using test::Training;
using test::trajectory_run;

const Json& expected_trajectory() {
  static const Json json = read_json(test::kTrajectory / "expected.json");
  return json;
}

void expect_step(const StepMetrics& ours, const Json& theirs, double tolerance) {
  EXPECT_EQ(ours.tokens, theirs.at("tokens").get<int64_t>());
  EXPECT_NEAR(ours.loss, theirs.at("loss").get<double>(), tolerance) << ours.step;
  EXPECT_NEAR(ours.lm_loss, theirs.at("lm_loss").get<double>(), tolerance) << ours.step;
  EXPECT_NEAR(ours.mtp_loss, theirs.at("mtp_loss").get<double>(), tolerance) << ours.step;
  EXPECT_NEAR(ours.balance_loss, theirs.at("balance_loss").get<double>(), tolerance) << ours.step;
  EXPECT_NEAR(ours.grad_norm, theirs.at("grad_norm").get<double>(), tolerance) << ours.step;
  EXPECT_NEAR(ours.lr, theirs.at("lr").get<double>(), 1e-15) << ours.step;
}

TEST(Trajectory, HundredStepsInFp64) {
  Training training(trajectory_run());
  for (const Json& step : expected_trajectory().at("steps")) expect_step(training.trainer.step(), step, 1e-9);
  for (const auto& [name, bias] : expected_trajectory().at("final_bias").items()) {
    const int64_t layer = std::stoll(name.substr(name.find_first_of("0123456789")));
    const auto values = bias.get<std::vector<double>>();
    EXPECT_TRUE(training.model.router_state(layer)->bias_E.allclose(at::tensor(values, at::kDouble), 0, 1e-9))
        << name;
  }
  const Json& final_norm = expected_trajectory().at("final_norm");
  int compared = 0;
  for (const auto& unit : training.model.flat_units()) {
    for (const auto& slot : unit->slots()) {
      if (!final_norm.contains(slot.spec->name)) continue;
      EXPECT_NEAR(test::whole(training.model, *slot.spec).norm().item<double>(),
                  final_norm.at(slot.spec->name).get<double>(), 1e-9)
          << slot.spec->name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
}

// As in training: each rank ends with the same error, whoever starts it.
TEST(Evaluation, ABadTokenOfOneRankIsTheErrorOfAll) {
  test::TempDir dir;
  const auto text = dir / "text.bin";
  std::filesystem::copy(test::kTrajectory / "text.bin", text);
  std::filesystem::copy(test::kTrajectory / "text.idx", dir / "text.idx");
  std::fstream(text, std::ios::in | std::ios::out | std::ios::binary).seekp(2 * 300).write("\xff\xff", 2);
  const RunConfig run = trajectory_run({"parallel.shard=2", "data.valid=" + (dir / "text").string()});
  std::vector<std::string> said(2);
  auto evaluate_all = [&](const Mesh& mesh) {
    Training training(run, mesh);
    try {
      evaluate(training.model, Loader(run, mesh, /*valid=*/true), run.train.micro_batch, 0);
    } catch (const Error& error) {
      said[mesh.rank()] = error.what();
      EXPECT_EQ(error.code(), ExitCode::content);
      throw;
    }
  };
  EXPECT_THROW(test::run_ranks({.replicate = 1, .shard = 2, .ep = 1}, evaluate_all), Error);
  EXPECT_NE(said[1].find("65535"), std::string::npos) << said[1];  // its sequence, the tenth
  EXPECT_EQ(said[0], said[1]);
}

// comm_s is all waiting in collectives. Those of `world` are waited for at once, each as long as the delay.
TEST(Metrics, CountTheTimeInCollectives) {
  constexpr double kDelay = 0.01;
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 2},
                  [](const Mesh& mesh) {
                    Training training(trajectory_run({"parallel.shard=2", "parallel.ep=2"}), mesh);
                    const StepMetrics metrics = training.trainer.step();
                    ASSERT_EQ(metrics.comm.at(0).group, "world");
                    EXPECT_GE(metrics.comm[0].calls, 4);
                    EXPECT_GE(metrics.comm_s, 0.9 * kDelay * static_cast<double>(metrics.comm[0].calls));
                    EXPECT_LE(metrics.comm_s, metrics.step_s);
                  },
                  {.delay_ms = 1e3 * kDelay});
  EXPECT_EQ(Training(trajectory_run()).trainer.step().comm_s, 0);
}

TEST(Trajectory, FirstStepInFp32) {
  Training training(trajectory_run({"train.dtype=fp32"}));
  const Json& theirs = expected_trajectory().at("steps").at(0);
  const StepMetrics ours = training.trainer.step();
  EXPECT_NEAR(ours.loss, theirs.at("loss").get<double>(), 1e-6 * ours.loss);
  EXPECT_NEAR(ours.grad_norm, theirs.at("grad_norm").get<double>(), 1e-5 * ours.grad_norm);
}

// A line of metrics.jsonl without the fields that time and memory fill.
std::string comparable(const StepMetrics& metrics) {
  Json json = parse_json(json_line(metrics), "metrics");
  for (const char* key : {"tokens_per_s", "step_s", "data_s", "save_s", "mem_bytes"}) json.erase(key);
  return json.dump();
}

TEST(Determinism, TwentyRunsGiveTheSameBytesOnOneThreadAndOnTwo) {
  const int threads = at::get_num_threads();
  for (const char* dtype : {"fp32", "bf16"}) {
    for (int count : {1, 2}) {
      at::set_num_threads(count);
      std::string first;
      std::vector<Tensor> first_weights;
      for (int repeat = 0; repeat < 20; ++repeat) {
        Training training(trajectory_run({std::string("train.dtype=") + dtype}));
        std::string lines;
        for (int i = 0; i < 2; ++i) lines += comparable(training.trainer.step());
        if (repeat == 0) {
          first = lines;
          first_weights = test::weights(training.model);
        }
        ASSERT_EQ(lines, first) << dtype << ", " << count << " threads, run " << repeat;
        ASSERT_TRUE(test::all_equal(test::weights(training.model), first_weights));
      }
    }
  }
  at::set_num_threads(threads);
}

// Wide enough that every operator splits its work between two threads.
TEST(Determinism, WideStepsOnTwoThreads) {
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  const int repeats = std::getenv("DSV3_LONG_TESTS") ? 20 : 4;
  for (const char* dtype : {"fp32", "bf16"}) {
    std::string first;
    std::vector<Tensor> first_weights;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      Training training(trajectory_run({std::string("train.dtype=") + dtype, "model.init=",
                                        "model.hidden_size=256", "model.moe_intermediate_size=128",
                                        "data.seq_len=256", "train.global_batch=4", "train.micro_batch=4"}));
      std::string lines;
      for (int i = 0; i < 2; ++i) lines += comparable(training.trainer.step());
      if (repeat == 0) first = lines, first_weights = test::weights(training.model);
      ASSERT_EQ(lines, first) << dtype << ", run " << repeat;
      ASSERT_TRUE(test::all_equal(test::weights(training.model), first_weights))
          << dtype << ", run " << repeat;
    }
  }
  at::set_num_threads(threads);
}

TEST(LoaderAhead, GivesWhatWasAskedForAndItsErrors) {
  Training training(trajectory_run({}));
  const Loader& loader = training.loader;
  auto same = [&](const Batch& batch, int64_t cursor, int64_t sequences) {
    const Batch expected = loader.at(cursor, sequences);
    ASSERT_EQ(batch.micro.size(), expected.micro.size());
    EXPECT_EQ(batch.first_sample, cursor);
    for (size_t i = 0; i < expected.micro.size(); ++i)
      EXPECT_TRUE(at::equal(batch.micro[i].tokens_BS, expected.micro[i].tokens_BS));
  };
  LoaderAhead ahead(loader);
  same(ahead.take(0, 2), 0, 2);
  ahead.begin(2, 2);
  same(ahead.take(2, 2), 2, 2);
  ahead.begin(4, 2);
  same(ahead.take(4, 3), 4, 3);  // a batch of another size
  ahead.begin(7, 2);
  same(ahead.take(1, 2), 1, 2);  // another place
}

TEST(LoaderAhead, AnErrorComesWithTheBatchThatItBelongsTo) {
  const test::TempDir folder;
  IndexedDatasetWriter writer(folder / "tokens", 65536);
  std::vector<int32_t> ids(4 * 32 + 1, 5);
  ids.back() = 60000;  // outside the vocabulary, in the last sample
  writer.add_document(ids);
  writer.finish();
  const RunConfig run =
      trajectory_run({"data.shuffle=false", "data.train=" + (folder / "tokens").string(), "data.seq_len=32"});
  const Loader loader(run, Mesh::create({}));
  LoaderAhead ahead(loader);
  ahead.begin(3, 1);
  EXPECT_EQ(ahead.take(0, 1).first_sample, 0);
  ahead.begin(3, 1);
  EXPECT_THROW(ahead.take(3, 1), InputError);
}

TEST(LoaderAhead, ATrainerThatGoesBackReadsThoseSamplesAgain) {
  Training once(trajectory_run({})), again(trajectory_run({}));
  const std::string first = comparable(once.trainer.step());
  again.trainer.resume({});
  EXPECT_EQ(comparable(again.trainer.step()), first);
  once.trainer.step();
  const auto weights = test::weights(once.model);
  again.trainer.resume(
      {.step = 1, .tokens = again.trainer.state().tokens, .cursor = again.trainer.state().cursor});
  again.trainer.step();
  EXPECT_TRUE(test::all_equal(test::weights(again.model), weights));
}

TEST(Evaluation, LeavesBiasCountersAndTrainingAsTheyAre) {
  Training a(trajectory_run({"train.dtype=fp32"})), b(trajectory_run({"train.dtype=fp32"}));
  RunConfig run = a.run;
  run.data.valid = run.data.train;
  const Loader valid(run, Mesh::create({}), true);
  for (int i = 0; i < 3; ++i) {
    const std::string line = comparable(a.trainer.step());
    const auto before = test::weights(b.model), counts = test::counts(b.model);
    const EvalResult result = evaluate(b.model, valid, 2, 3);
    EXPECT_EQ(result.targets, 6 * 32);
    EXPECT_TRUE(test::all_equal(test::weights(b.model), before));
    EXPECT_TRUE(test::all_equal(test::counts(b.model), counts));
    EXPECT_EQ(comparable(b.trainer.step()), line);
  }
}

TEST(Learning, OverfitsOneBatchAndThenWritesItDown) {
  Training training(trajectory_run({"train.dtype=fp32", "balance.loss=none", "optim.weight_decay=0"}));
  const Batch batch = training.loader.at(0, 1);
  Losses losses;
  for (int i = 0; i < 300; ++i) {
    Step step = training.model.begin_step(batch);
    Output output = step.forward(batch.micro[0]);
    losses = standard_loss(output, step.counts(), {.mtp_lambda = 0.3});
    losses.total.backward();
    step.backward(std::move(output));
    training.optimizer.step(step.finish(), i < 200 ? 5e-3 : 1e-3, 0);
  }
  EXPECT_LT(losses.lm.item<double>(), 0.05);
  EXPECT_LT(losses.mtp[0].item<double>(), 0.1);
  const Tensor& tokens = batch.micro[0].tokens_BS;
  const Tensor prompt = tokens.narrow(1, 0, 8);
  const Tensor written = generate(training.model, prompt, {}, {.max_new_tokens = 24});
  EXPECT_TRUE(written.equal(tokens.narrow(1, 8, 24)));
}

}  // namespace
}  // namespace dsv3
