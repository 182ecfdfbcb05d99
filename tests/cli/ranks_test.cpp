// Several ranks from the command line, over Gloo: equal to one process, byte by byte counted, one error for
// all.
#include "cli/ranks.h"

#include <gtest/gtest.h>

namespace dsv3::test {
namespace {

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
  const std::vector<std::vector<std::string>> meshes = {
      {"--nproc", "2"},
      {"--nproc", "2", "--parallel.ep=2"},
      {"--nproc", "4", "--parallel.replicate=2", "--parallel.ep=2"}};
  const double loss_of_one = loss({});
  for (const auto& mesh : meshes) EXPECT_NEAR(loss(mesh), loss_of_one, 1e-10) << mesh.size();

  auto text = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"generate", "--model",          one,  "--prompt",
                                     "In the ",  "--max-new-tokens", "16", "--train.dtype=fp64"};
    args.insert(args.end(), more.begin(), more.end());
    const Result result = start(args)->wait();
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out;
  };
  const std::string text_of_one = text({});
  for (const auto& mesh : meshes) EXPECT_EQ(text(mesh), text_of_one) << mesh.size();
}

// Over Gloo itself: what tests/parallel shows of every layout over a transport in memory.
TEST(Ranks, LayoutsOverGlooTrainLikeOneProcess) {
  TempDir dir;
  const std::vector<std::string> all = {"--model.num_nextn_predict_layers=2",
                                        "--model.init=", "--train.micro_batch=1"};
  ASSERT_EQ(dsv3(train(dir / "one", all)).code, 0);
  const auto theirs = metrics_of(dir / "one");
  int number = 0;
  for (const std::vector<std::string>& flags : std::vector<std::vector<std::string>>{
           {"--nproc", "2", "--parallel.reshard=after_forward", "--parallel.recompute=block"},
           {"--nproc", "4", "--parallel.ep=2"},
           {"--nproc", "4", "--parallel.ep=4", "--parallel.reshard=never"},
           {"--nproc", "4", "--parallel.replicate=2", "--parallel.ep=2",
            "--parallel.accumulate=unsharded"}}) {
    SCOPED_TRACE(number);
    const fs::path out = dir / std::to_string(number++);
    std::vector<std::string> args = train(out, all);
    args.insert(args.end(), flags.begin(), flags.end());
    const Result result = dsv3(args);
    ASSERT_EQ(result.code, 0) << result.err;
    const auto ours = metrics_of(out);
    ASSERT_EQ(ours.size(), theirs.size());
    for (size_t i = 0; i < ours.size(); ++i)
      for (const char* key : {"loss", "lm_loss", "mtp_loss", "balance_loss", "grad_norm"}) {
        const double expected = theirs[i].at(key).get<double>();
        EXPECT_NEAR(ours[i].at(key).get<double>(), expected, 1e-10 * expected) << key << " of step " << i + 1;
      }
  }
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

}  // namespace
}  // namespace dsv3::test
