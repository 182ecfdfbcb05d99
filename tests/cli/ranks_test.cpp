// Several ranks from the command line, over Gloo: equal to one process, and what happens when a rank is in
// trouble.
#include <gtest/gtest.h>

#include "dsv3/base/json.h"
#include "launch/job.h"

namespace dsv3::test {
namespace {

namespace fs = std::filesystem;
const fs::path kGoldens = fs::path(DSV3_SOURCE_DIR) / "tests/golden";
const std::string kRun = kGoldens / "trajectory/run.toml";
const std::string kText = kGoldens / "trajectory/text";

// The lines of metrics.jsonl without what time and memory fill.
std::vector<Json> metrics_of(const fs::path& run) {
  std::vector<Json> lines;
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    lines.push_back(parse_json(line, "metrics.jsonl"));
    for (const char* key : {"tokens_per_s", "step_s", "data_s", "comm_s", "mem_bytes"})
      lines.back().erase(key);
  }
  return lines;
}

std::vector<std::string> train(const fs::path& out, std::vector<std::string> more = {}, int64_t steps = 3) {
  std::vector<std::string> args = {"train", kRun, "--train.steps=" + std::to_string(steps),
                                   "--train.global_batch=4", "--train.out=" + out.string()};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::unique_ptr<Job> start(std::vector<std::string> args) {
  return std::make_unique<Job>(std::move(args), std::vector<std::string>{"DSV3_ENGINE="});
}

TEST(Ranks, TrainEvaluateAndGenerateLikeOneProcess) {
  TempDir dir;
  const std::string one = (dir / "one").string(), two = (dir / "two").string(),
                    again = (dir / "again").string();
  const std::vector<std::string> eval = {"--data.valid=" + kText, "--eval.batches=3"};
  ASSERT_EQ(dsv3(train(one, eval)).code, 0);
  for (const std::string& out : {two, again}) {
    std::vector<std::string> args = train(out, eval);
    args.insert(args.end(), {"--parallel.ep=2", "--nproc", "2"});
    const Result result = start(args)->wait();
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find("2 ranks: replicate 1, shard 2, ep 2"), std::string::npos) << result.out;
  }
  const auto ours = metrics_of(two), theirs = metrics_of(one);
  ASSERT_EQ(ours.size(), 4u);
  for (size_t i = 0; i < ours.size(); ++i)
    for (const char* key : {"loss", "lm_loss", "mtp_loss", "balance_loss", "grad_norm", "eval_loss"}) {
      if (!ours[i].contains(key)) continue;
      const double expected = theirs[i].at(key).get<double>();
      EXPECT_NEAR(ours[i].at(key).get<double>(), expected, 1e-10 * expected) << key << " of line " << i;
    }
  EXPECT_GT(ours[0].at("comm").at("expert").at("bytes").get<int64_t>(), 0);
  EXPECT_TRUE(theirs[0].at("comm").empty());
  // The same layout twice: the same bytes.
  EXPECT_EQ(ours, metrics_of(again));
  EXPECT_EQ(read_file(two + "/hf/model.safetensors"), read_file(again + "/hf/model.safetensors"));

  auto loss = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"eval",  "--model",   one, "--data",        kText, "--seq-len",
                                     "32",    "--batches", "3", "--micro-batch", "1",   "--train.dtype=fp64",
                                     "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const Result result = start(args)->wait();
    EXPECT_EQ(result.code, 0) << result.err;
    return parse_json(result.out, "eval").at("loss").get<double>();
  };
  EXPECT_NEAR(loss({"--nproc", "2", "--parallel.ep=2"}), loss({}), 1e-10);

  auto text = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"generate", "--model",          one,  "--prompt",
                                     "In the ",  "--max-new-tokens", "16", "--train.dtype=fp64"};
    args.insert(args.end(), more.begin(), more.end());
    const Result result = start(args)->wait();
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out;
  };
  EXPECT_EQ(text({"--nproc", "2", "--parallel.ep=2"}), text({}));
}

// The formula is tools/bytes.py, which reads config.json and the layout and shares no code with the program.
TEST(Ranks, MoveTheBytesOfTheFormula) {
  TempDir dir;
  int number = 0;
  for (const std::vector<std::string>& flags : std::vector<std::vector<std::string>>{
           {"--parallel.shard=2", "--parallel.ep=2", "--train.dtype=bf16"},
           {"--parallel.shard=2", "--parallel.reshard=after_forward", "--parallel.recompute=block"},
           {"--parallel.shard=2", "--parallel.replicate=2", "--parallel.ep=2",
            "--parallel.accumulate=unsharded", "--parallel.recompute=moe", "--parallel.reshard=never"}}) {
    const std::string out = (dir / std::to_string(number++)).string();
    std::vector<std::string> args = train(out, flags);
    args.insert(args.end(), {"--nproc", flags.size() > 3 ? "4" : "2"});
    const Result trained = start(args)->wait();
    ASSERT_EQ(trained.code, 0) << trained.err;
    const Result result =
        run_program("/usr/bin/env", {"python3", std::string(DSV3_SOURCE_DIR) + "/tools/bytes.py", out});
    EXPECT_EQ(result.code, 0) << result.out << result.err;
    EXPECT_NE(result.out.find("3 of 3 steps"), std::string::npos) << result.out;
  }
}

TEST(Ranks, OneErrorOneCode) {
  TempDir dir;
  fs::create_directory(dir / "full");
  write_file(dir / "full/file", "x");
  auto with = [&](std::vector<std::string> more, const fs::path& out) {
    std::vector<std::string> args = train(out, more);
    args.insert(args.end(), {"--nproc", "2"});
    return start(args)->wait();
  };
  expect_failure(with({}, dir / "full"), ExitCode::usage,
                 {"train.out", "is not empty"});  // rank 0 alone sees it
  expect_failure(with({"--parallel.shard=3"}, dir / "run"), ExitCode::usage, {"parallel.shard"});
  expect_failure(with({"--model.vocab_size=20"}, dir / "run"), ExitCode::content, {"text.bin"});
  expect_failure(with({"--parallel.ep=2", "--model.n_routed_experts=9", "--model.n_group=1",
                       "--model.topk_group=1", "--model.init="},
                      dir / "run"),
                 ExitCode::usage, {"parallel.ep", "n_routed_experts = 9"});
  EXPECT_FALSE(fs::exists(dir / "run"));
}

// A run that goes on until something happens to it, past its first steps.
std::unique_ptr<Job> running(const TempDir& dir, std::vector<std::string> more = {}) {
  std::vector<std::string> args = train(dir / "run", {"--parallel.ep=2", "--nproc", "2"}, 1000000);
  args.insert(args.end(), more.begin(), more.end());
  auto job = start(args);
  EXPECT_TRUE(eventually([&] { return metrics_of(dir / "run").size() >= 3; })) << job->err();
  return job;
}

TEST(Ranks, AKilledRankEndsTheJobAndIsNamed) {
  TempDir dir;
  auto job = running(dir);
  const std::vector<pid_t> pids = job->pids();
  const int64_t killed = monotonic_ms();
  ::kill(pids[1], SIGKILL);
  const Result result = job->wait();
  EXPECT_LT(monotonic_ms() - killed, 5000);
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("rank 1 on "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("killed by SIGKILL"), std::string::npos) << result.err;
  for (pid_t pid : pids) EXPECT_TRUE(is_gone(pid));
}

TEST(Ranks, AStoppedRankIsNamedByTheLauncherAndByTheOnesThatWait) {
  TempDir dir;
  auto job = running(dir, {"--parallel.timeout_s=3"});
  ::kill(job->pids()[1], SIGSTOP);
  EXPECT_TRUE(job->err_has("rank 1 is stopped")) << job->err();
  const Result result = job->wait();
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("missing rank 1"), std::string::npos) << result.err;
}

TEST(Ranks, ASignalStopsAllAfterTheSameStep) {
  TempDir dir;
  auto job = running(dir);
  job->signal(SIGTERM);
  const Result result = job->wait();
  EXPECT_EQ(result.code, 143) << result.err;
  EXPECT_EQ(count(result.err, "stopped after step"), 1u) << result.err;
}

// Sockets of a process that listen on another address than 127.0.0.1 or ::1.
std::vector<std::string> open_listeners(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid);
  std::vector<std::string> found;
  for (const char* table : {"/net/tcp", "/net/tcp6"}) {
    std::ifstream in(proc + table);
    std::string line;
    std::getline(in, line);  // the header
    while (std::getline(in, line)) {
      std::istringstream words(line);
      std::string number, local, remote, state, skip, inode;
      words >> number >> local >> remote >> state >> skip >> skip >> skip >> skip >> skip >> inode;
      if (state != "0A" || local.starts_with("0100007F:")) continue;
      for (const auto& entry : fs::directory_iterator(proc + "/fd")) {
        std::error_code error;
        if (fs::read_symlink(entry.path(), error).string() == "socket:[" + inode + "]")
          found.push_back(local);
      }
    }
  }
  return found;
}

TEST(Ranks, NoSocketListensOnAnotherAddress) {
  TempDir dir;
  auto job = running(dir);
  for (pid_t pid : job->pids()) EXPECT_EQ(open_listeners(pid), std::vector<std::string>{});
  job->signal(SIGTERM);
  job->wait();
}

// What torchrun gives its processes, without torchrun.
Result rank_of(int rank, int world, int port, const std::vector<std::string>& args) {
  return dsv3(args,
              {.env = {"RANK=" + std::to_string(rank), "WORLD_SIZE=" + std::to_string(world),
                       "LOCAL_RANK=" + std::to_string(rank), "LOCAL_WORLD_SIZE=" + std::to_string(world),
                       "MASTER_ADDR=127.0.0.1", "OMP_NUM_THREADS=1", "MASTER_PORT=" + std::to_string(port)}});
}

TEST(Ranks, MeetAtAnAddress) {
  TempDir dir;
  std::vector<std::string> args = train(dir / "run", {"--parallel.ep=2", "--parallel.timeout_s=60"});
  Result results[2];
  std::thread second([&] { results[1] = rank_of(1, 2, 29731, args); });
  results[0] = rank_of(0, 2, 29731, args);
  second.join();
  for (const Result& result : results) EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(metrics_of(dir / "run").size(), 3u);
  EXPECT_EQ(results[1].out, "");
}

TEST(Ranks, ARankThatDoesNotComeIsNamed) {
  TempDir dir;
  const Result result = rank_of(0, 2, 29732, train(dir / "run", {"--parallel.timeout_s=2"}));
  expect_failure(result, ExitCode::failed, {"127.0.0.1:29732", "missing rank 1"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  expect_failure(rank_of(2, 2, 29732, train(dir / "run")), ExitCode::usage, {"RANK"});
  expect_failure(rank_of(0, 2, 65536, train(dir / "run")), ExitCode::usage, {"MASTER_PORT", "65536"});
}

// Two jobs that were given one address: the layouts differ.
TEST(Ranks, AnotherJobAtTheSamePlaceIsSeen) {
  TempDir dir;
  Result results[2];
  std::thread second([&] {
    results[1] =
        rank_of(1, 2, 29733, train(dir / "b", {"--parallel.replicate=2", "--parallel.timeout_s=20"}));
  });
  results[0] = rank_of(0, 2, 29733, train(dir / "a", {"--parallel.timeout_s=20"}));
  second.join();
  for (const Result& result : results)
    expect_failure(result, ExitCode::failed, {"two jobs share this place"});
}

}  // namespace
}  // namespace dsv3::test
