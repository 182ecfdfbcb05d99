// Runs that stop and go on, and what happens to their checkpoints meanwhile.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <random>

#include "cli/saving.h"

namespace dsv3::test {
namespace {

std::string weights_of(const fs::path& run) { return read_file(run / "hf/model.safetensors"); }

struct Layout {
  const char* name;
  std::vector<std::string> flags;
};
void PrintTo(const Layout& layout, std::ostream* out) { *out << layout.name; }
class Resumed : public testing::TestWithParam<Layout> {};

TEST_P(Resumed, TwentyAndTwentyStepsAreForty) {
  TempDir dir;
  std::vector<std::string> flags = GetParam().flags;
  // The batch changes before and after the stop; λ, the learning rate and γ end after it: at 3,200, 4,480 and
  // 4,800 tokens.
  flags.push_back("--schedule.batch=[{tokens=0,value=4},{tokens=1280,value=2},{tokens=2240,value=6}]");
  ASSERT_EQ(dsv3(saving(dir / "all", 40, flags)).code, 0);
  ASSERT_EQ(dsv3(saving(dir / "two", 20, flags)).code, 0);
  const Result second = dsv3(going_on(dir / "two", 40, flags));
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_NE(second.out.find("resumed from"), std::string::npos) << second.out;
  const std::vector<Json> metrics = metrics_of(dir / "all");
  EXPECT_EQ(metrics_of(dir / "two"), metrics);
  EXPECT_EQ(weights_of(dir / "two"), weights_of(dir / "all"));
  const auto tokens = [&](size_t step) { return metrics.at(step - 1).at("tokens").get<int64_t>(); };
  for (const auto& [step, batch] : {std::pair(10, 4), {11, 2}, {25, 2}, {26, 6}, {40, 6}})
    EXPECT_EQ(tokens(step) - tokens(step - 1), batch * 32) << step;
}

INSTANTIATE_TEST_SUITE_P(Ranks, Resumed,
                         testing::Values(Layout{"One", {"--train.micro_batch=1"}},
                                         Layout{"Two",
                                                {"--nproc", "2", "--parallel.ep=2", "--checkpoint.async=true",
                                                 "--train.micro_batch=1"}},
                                         Layout{"Four",
                                                {"--nproc", "4", "--parallel.ep=2",
                                                 "--model.num_nextn_predict_layers=2",
                                                 "--model.init=", "--checkpoint.async=true"}}),
                         [](const auto& info) { return info.param.name; });

TEST(Resume, ASignalSavesAndTheRunGoesOnFromThere) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "all", 60)).code, 0);
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    const fs::path out = dir / ("run" + std::to_string(ranks));
    const std::vector<std::string> flags =
        ranks == 1 ? std::vector<std::string>{} : std::vector<std::string>{"--nproc", "2"};
    auto job = start(saving(out, 1000000, flags));
    ASSERT_TRUE(eventually([&] { return count(read_file(out / "metrics.jsonl"), "\n") >= 4; })) << job->err();
    job->signal(SIGTERM);
    const Result stopped = job->wait();
    EXPECT_EQ(stopped.code, 75) << stopped.err;
    EXPECT_NE(stopped.err.find("stopped after step"), std::string::npos) << stopped.err;
    const auto steps = static_cast<int64_t>(metrics_of(out).size());
    EXPECT_TRUE(fs::exists(out / "checkpoints" / ("step-" + std::to_string(steps)) / ".metadata"));
    if (ranks == 2 || steps >= 60) continue;
    const Result rest = dsv3(going_on(out, 60, flags));
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_EQ(metrics_of(out), metrics_of(dir / "all"));
    EXPECT_EQ(weights_of(out), weights_of(dir / "all"));
  }
}

// However often and whenever it dies, the run ends where it would have ended. DSV3_LONG_TESTS: a hundred
// times.
TEST(Resume, KillsAtAnyInstantChangeNothing) {
  TempDir dir;
  const int kills = std::getenv("DSV3_LONG_TESTS") != nullptr ? 100 : 8;
  const std::vector<std::string> flags = {"--checkpoint.every=1", "--checkpoint.keep_last=3"};
  const int64_t steps = 40;
  auto command = [&](const fs::path& out) {
    std::vector<std::string> args = train(out, flags, steps);
    args.insert(args.end(), {"--checkpoint.resume=auto", "--train.dtype=fp32"});
    return args;
  };
  const Result all = dsv3(command(dir / "all"));
  ASSERT_EQ(all.code, 0) << all.err;
  std::mt19937 random(3);
  int64_t furthest = 0;
  for (int i = 0; i < kills; ++i) {
    const fs::path out = dir / "run";
    if (fs::exists(out / "hf")) fs::remove_all(out);  // it got through: once more
    RunOptions options;
    options.signal = SIGKILL;
    options.signal_after_ms = static_cast<int>(random() % static_cast<unsigned>(all.seconds * 1000));
    const Result killed = dsv3(command(out), options);
    ASSERT_TRUE(killed.code == -SIGKILL || killed.code == 0) << killed.code << killed.err;
    ASSERT_EQ(killed.err.find("is not valid"), std::string::npos) << killed.err;
    furthest = std::max(furthest, static_cast<int64_t>(metrics_of(out).size()));
  }
  const Result last = dsv3(command(dir / "run"));
  ASSERT_EQ(last.code, 0) << last.err;
  EXPECT_EQ(last.err.find("is not valid"), std::string::npos) << last.err;
  EXPECT_EQ(metrics_of(dir / "run"), metrics_of(dir / "all"));
  EXPECT_EQ(weights_of(dir / "run"), weights_of(dir / "all"));
  EXPECT_GT(furthest, 3);
}

TEST(Resume, TwoRunsOnOneFolderTheSecondRefuses) {
  TempDir dir;
  auto job = start(saving(dir / "run", 1000000));
  ASSERT_TRUE(eventually([&] { return fs::exists(dir / "run/checkpoints/step-3"); })) << job->err();
  const std::string before = read_file(dir / "run/run.toml");
  expect_failure(dsv3(going_on(dir / "run", 50)), ExitCode::usage,
                 {"train.out", "another run is at work in it"});
  EXPECT_EQ(read_file(dir / "run/run.toml"), before);
}

// A checkpoint that was passed by is set aside: it is neither kept in place of a good one nor ever taken
// again.
TEST(Resume, ADamagedCheckpointCostsNoGoodOne) {
  TempDir dir;
  const std::vector<std::string> keep = {"--checkpoint.keep_last=1", "--checkpoint.keep_every=3"};
  ASSERT_EQ(dsv3(saving(dir / "all", 12, keep)).code, 0);
  ASSERT_EQ(dsv3(saving(dir / "run", 9, keep)).code, 0);
  const fs::path newest = dir / "run/checkpoints/step-9";
  std::string bytes = read_file(newest / "__0_0.distcp");
  bytes[bytes.size() / 2] ^= 1;
  write_file(newest / "__0_0.distcp", bytes);
  const Result result = dsv3(going_on(dir / "run", 12, keep));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("step-9 is not valid"), std::string::npos) << result.err;
  EXPECT_TRUE(fs::exists(dir / "run/checkpoints/step-9.passed"));
  for (const char* step : {"step-3", "step-6", "step-9", "step-12"})
    EXPECT_EQ(dsv3({"ckpt", "verify", dir / "run/checkpoints" / step}).code, 0) << step;
  EXPECT_EQ(metrics_of(dir / "run"), metrics_of(dir / "all"));
  EXPECT_EQ(weights_of(dir / "run"), weights_of(dir / "all"));
}

TEST(Resume, FromAnEarlierCheckpointTheLaterOnesAreOfAnotherPast) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 9, {"--checkpoint.keep_last=3"})).code, 0);
  const Result result =
      dsv3(saving(dir / "run", 6,
                  {"--checkpoint.resume=" + (dir / "run/checkpoints/step-3").string(), "--optim.lr=1e-3"}));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(metrics_of(dir / "run").size(), 6u);
  EXPECT_EQ(dsv3({"ckpt", "verify", dir / "run"}).out.find("step-6:") != std::string::npos, true);
  EXPECT_FALSE(fs::exists(dir / "run/checkpoints/step-9"));
}

TEST(Resume, AnExportOfAnEarlierStepIsNotTakenForTheResult) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 3)).code, 0);
  ASSERT_TRUE(fs::exists(dir / "run/hf"));
  auto job = start(going_on(dir / "run", 1000000));
  ASSERT_TRUE(eventually([&] { return metrics_of(dir / "run").size() > 4; })) << job->err();
  job->signal(SIGKILL);
  job->wait();
  EXPECT_FALSE(fs::exists(dir / "run/hf"));
}

// A byte that one rank alone reads ends all of them, with its code.
TEST(Resume, DamageThatOneRankSeesIsTheErrorOfAll) {
  TempDir dir;
  ASSERT_EQ(dsv3({"convert", kGoldens / "trajectory", dir / "dcp"}).code, 0);
  const fs::path file = dir / "dcp/__0_0.distcp";
  std::string bytes = read_file(file);
  fs::remove(dir / "dcp/manifest.json");
  bytes[bytes.size() * 9 / 10] ^= 1;
  write_file(file, bytes);
  expect_failure(dsv3({"train", kRun, "--train.steps=1", "--nproc", "2",
                       "--model.init=" + (dir / "dcp").string(), "--train.out=" + (dir / "run").string()}),
                 ExitCode::content, {"__0_0.distcp"});
}

TEST(Resume, OfAnotherModelIsRefusedByItsFields) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 3)).code, 0);
  expect_failure(dsv3(going_on(dir / "run", 6, {"--model.n_routed_experts=16", "--model.init="})),
                 ExitCode::usage, {"step-3", "n_routed_experts 8 there, 16 here"});
}

// Nothing is ever removed from a folder that is no run, nor is hf/ that no checkpoint can give again.
TEST(Resume, AFolderWithOtherThingsInItIsRefusedAndLeftAlone) {
  TempDir dir;
  fs::create_directories(dir / "models");
  fs::copy(kGoldens / "trajectory", dir / "models/hf", fs::copy_options::recursive);
  expect_failure(dsv3(going_on(dir / "models", 3)), ExitCode::usage, {"train.out", "holds files and no run"});
  EXPECT_TRUE(fs::exists(dir / "models/hf/model.safetensors"));

  ASSERT_EQ(dsv3(train(dir / "run", {}, 2)).code, 0);
  const std::string weights = weights_of(dir / "run");
  expect_failure(dsv3(train(dir / "run", {"--checkpoint.resume=auto"}, 4)), ExitCode::usage,
                 {"train.out", "no checkpoint to go on from"});
  EXPECT_EQ(weights_of(dir / "run"), weights);
}

TEST(Resume, ACheckpointOfAnotherRunDoesNotMixWithOnesOfThisRun) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "a", 3)).code, 0);
  ASSERT_EQ(dsv3(saving(dir / "b", 6)).code, 0);
  const std::string theirs = "--checkpoint.resume=" + (dir / "a/checkpoints/step-3").string();
  expect_failure(dsv3(saving(dir / "b", 6, {theirs})), ExitCode::usage,
                 {"checkpoint.resume", "is of another run"});
  EXPECT_EQ(metrics_of(dir / "b").size(), 6u);
  EXPECT_EQ(dsv3(saving(dir / "c", 6, {theirs})).code, 0);
}

TEST(Resume, WhatWasFrozenThereIsNoDamage) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 3, {"--optim.freeze=[\"*.embed_tokens.*\"]"})).code, 0);
  expect_failure(dsv3(going_on(dir / "run", 6)), ExitCode::usage,
                 {"optim.freeze", "model.embed_tokens.weight.exp_avg"});
  EXPECT_TRUE(fs::exists(dir / "run/checkpoints/step-3"));
}

TEST(Resume, WhatTheRunDoesOtherwiseIsSaid) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 3)).code, 0);
  const Result same = dsv3(going_on(dir / "run", 6, {"--train.micro_batch=2", "--checkpoint.keep_last=3"}));
  ASSERT_EQ(same.code, 0);
  EXPECT_EQ(same.err.find("otherwise"), std::string::npos) << same.err;
  const Result other = dsv3(going_on(dir / "run", 9, {"--data.seed=9", "--data.seq_len=16"}));
  ASSERT_EQ(other.code, 0) << other.err;
  for (const char* change : {"data.seed 0 there, 9 here", "data.seq_len 32 there, 16 here"})
    EXPECT_NE(other.err.find(change), std::string::npos) << other.err;
}

// Without its manifest nothing says that the bytes are those that were saved.
TEST(Resume, ACheckpointWithoutAManifestIsTakenOnlyByItsName) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 6)).code, 0);
  const fs::path newest = dir / "run/checkpoints/step-6";
  fs::remove(newest / "manifest.json");
  const Result named = dsv3(saving(dir / "next", 7, {"--checkpoint.resume=" + newest.string()}));
  ASSERT_EQ(named.code, 0) << named.err;
  EXPECT_NE(named.err.find("step-6 has no manifest.json"), std::string::npos) << named.err;
  EXPECT_NE(named.out.find("resumed from " + newest.string()), std::string::npos) << named.out;
  const Result result = dsv3(going_on(dir / "run", 7));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("step-6 is not valid"), std::string::npos) << result.err;
  EXPECT_NE(result.out.find("step-3"), std::string::npos) << result.out;
}

// A power failure may leave zeros at the end of a file that was not synced, or anything.
TEST(Resume, LinesOfMetricsThatCannotBeReadAreDropped) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "all", 6)).code, 0);
  ASSERT_EQ(dsv3(saving(dir / "run", 3)).code, 0);
  const std::string before = read_file(dir / "run/metrics.jsonl");
  write_file(dir / "run/metrics.jsonl",
             "{\"step\":\"x\"}\n" + before + std::string(100, '\0') + "\n[1]\n{\"st");
  const Result result = dsv3(going_on(dir / "run", 6));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("metrics.jsonl: 3 lines could not be read"), std::string::npos) << result.err;
  EXPECT_EQ(metrics_of(dir / "run"), metrics_of(dir / "all"));
}

TEST(Resume, AFinishedRunHasNothingLeftToDo) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 3)).code, 0);
  const std::string metrics = read_file(dir / "run/metrics.jsonl");
  const Result again = dsv3(going_on(dir / "run", 3));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("nothing is left to do"), std::string::npos);
  EXPECT_EQ(read_file(dir / "run/metrics.jsonl"), metrics);
}

// Every command takes the run's newest checkpoint, its weights as they were exported.
TEST(Resume, ACheckpointIsAModel) {
  TempDir dir;
  ASSERT_EQ(dsv3(saving(dir / "run", 3)).code, 0);
  const Result exported = dsv3({"export", dir / "run", dir / "hf", "--dtype", "fp32"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(exported.err, "");
  const Result diff = dsv3({"ckpt", "diff", dir / "hf", dir / "run/hf"});
  EXPECT_EQ(diff.code, 0) << diff.out;
  auto evaluate = [&](const fs::path& model) {
    const Result result =
        dsv3({"eval", "--model", model, "--data", kText, "--seq-len", "32", "--batches", "2", "--json"});
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out;
  };
  EXPECT_EQ(evaluate(dir / "run"), evaluate(dir / "hf"));
  EXPECT_EQ(dsv3({"train", kRun, "--train.steps=1", "--model.init=" + (dir / "run").string(),
                  "--train.out=" + (dir / "next").string()})
                .code,
            0);
  EXPECT_EQ(dsv3({"ckpt", "verify", dir / "run"}).code, 0);
  const Result shown = dsv3({"ckpt", "show", dir / "run", "--json"});
  EXPECT_EQ(parse_json(shown.out, "show").at("step"), 3);
}

// A disk that is too small for all checkpoints.
TEST(Resume, AFullDiskKeepsTheOlderCheckpointAndEndsTheRunAfterK) {
  for (const std::string async : {"false", "true"}) {
    SCOPED_TRACE(async);
    TempDir dir;
    const fs::path disk = dir / "disk";
    fs::create_directories(disk);
    if (::mount("none", disk.c_str(), "tmpfs", 0, "size=9m") != 0)
      GTEST_SKIP() << "a tmpfs cannot be mounted here (root)";
    const Result result = dsv3(
        saving(disk / "run", 1000,
               {"--checkpoint.keep_last=100", "--checkpoint.max_failures=2", "--checkpoint.async=" + async}));
    EXPECT_EQ(result.code, 1) << result.err;
    EXPECT_NE(result.err.find("could not be saved"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("No space left"), std::string::npos) << result.err;
    size_t kept = 0;
    for (const auto& entry : fs::directory_iterator(disk / "run/checkpoints")) {
      EXPECT_FALSE(entry.path().string().ends_with(".tmp")) << entry.path();
      EXPECT_EQ(dsv3({"ckpt", "verify", entry.path()}).code, 0) << entry.path();
      ++kept;
    }
    EXPECT_GE(kept, 1u);
    // The disk was full for a while; no line is lost.
    const std::vector<Json> metrics = metrics_of(disk / "run");
    ::umount(disk.c_str());
    ASSERT_GE(metrics.size(), 3 * (kept + 2));
    EXPECT_EQ(metrics.back().at("step"), metrics.size());
  }
}

TEST(Resume, AFileSizeLimitIsAFailureLikeOthers) {
  TempDir dir;
  rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {300'000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const Result result = dsv3(saving(dir / "run", 9, {"--checkpoint.max_failures=2"}));
  // Warnings that nobody can read don't end the run.
  const Result unheard =
      dsv3(saving(dir / "unheard", 4, {"--checkpoint.max_failures=9"}), {.err_to = "/dev/full"});
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(unheard.code, 0);
  EXPECT_TRUE(fs::exists(dir / "unheard/hf/model.safetensors"));
  EXPECT_EQ(result.code, 1) << result.err;
  EXPECT_NE(result.err.find("File too large"), std::string::npos) << result.err;
  EXPECT_TRUE(fs::is_empty(dir / "run/checkpoints"));
}

}  // namespace
}  // namespace dsv3::test
