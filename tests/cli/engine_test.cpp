// The engine's commands from the command line: a run from text to generated text, and what is refused.
#include <sys/stat.h>

#include "cli/run.h"
#include "dsv3/base/json.h"

namespace dsv3::test {
namespace {

namespace fs = std::filesystem;
const fs::path kGoldens = fs::path(DSV3_SOURCE_DIR) / "tests/golden";
const std::string kRun = kGoldens / "trajectory/run.toml";

std::vector<Json> metrics_of(const fs::path& run) {
  std::vector<Json> lines;
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, "metrics.jsonl"));
  return lines;
}

TEST(Train, FromTextToARunFolderThatEveryCommandReads) {
  TempDir dir;
  const std::string out = dir / "run", data = kGoldens / "trajectory/text";
  const Result train = dsv3({"train", kRun, "--train.steps=2", "--train.dtype=fp32", "--data.valid=" + data,
                             "--eval.batches=2", "--train.out=" + out});
  ASSERT_EQ(train.code, 0) << train.err;
  const auto lines = metrics_of(out);
  ASSERT_EQ(lines.size(), 3u);
  for (const char* key :
       {"step", "tokens", "loss", "lm_loss", "mtp_loss", "balance_loss", "lr", "grad_norm", "tokens_per_s",
        "step_s", "data_s", "comm_s", "save_s", "mem_bytes", "max_vio", "dead_experts", "skipped", "comm"})
    EXPECT_TRUE(lines[0].contains(key)) << key;
  EXPECT_TRUE(lines[2].contains("eval_loss"));
  EXPECT_EQ(dsv3({"config", "check", out + "/run.toml"}).code, 0);
  const Result eval = dsv3({"eval", "--model", out, "--data", data, "--seq-len", "32", "--batches", "2",
                            "--micro-batch", "1", "--json"});
  ASSERT_EQ(eval.code, 0) << eval.err;
  EXPECT_NEAR(parse_json(eval.out, "eval").at("loss").get<double>(), lines[2].at("eval_loss").get<double>(),
              1e-6);
  const Result again = dsv3({"train", kRun, "--train.out=" + out});
  expect_failure(again, ExitCode::usage, {"train.out", "is not empty"});
}

// A person's own texts: a tokenizer learned from them, two sources with weights, fill-in-the-middle; two
// ranks see what one sees.
TEST(Train, FromTextsThroughATokenizerOfTheirOwn) {
  TempDir dir;
  std::string prose, code;
  for (int i = 0; i < 400; ++i) {
    prose += "In the beginning was line " + std::to_string(i * 7919 % 1000) + ", and it was long.\n";
    code +=
        "for (int k" + std::to_string(i) + " = 0; k < " + std::to_string(i * i % 97) + "; ++k) sum += k;\n";
  }
  write_file(dir / "prose.txt", prose);
  write_file(dir / "code.txt", code);
  const std::string tokenizer = dir / "tokenizer";
  const auto done = [](const Result& result) { ASSERT_EQ(result.code, 0) << result.err; };
  done(dsv3({"tokenizer", "train", dir / "prose.txt", dir / "code.txt", "--vocab-size", "400", "--out",
             tokenizer, "--special", "<｜fim▁begin｜>,<｜fim▁hole｜>,<｜fim▁end｜>"}));
  for (const std::string name : {"prose", "code"})
    done(dsv3({"prepare", dir / (name + ".txt"), "--format", "lines", "--tokenizer", tokenizer, "--out",
               dir / name}));
  const std::string sources = "--data.train=[{path = \"" + (dir / "prose").string() +
                              "\", weight = 0.75}, {path = \"" + (dir / "code").string() +
                              "\", weight = 0.25}]";
  const std::vector<const char*> companions = {"tokenizer_config.json", "special_tokens_map.json",
                                               "chat_template.jinja", "generation_config.json"};
  for (const char* name : companions) write_file(fs::path(tokenizer) / name, "{}");
  std::vector<Json> last;
  for (const std::string ranks : {"1", "2"}) {
    const fs::path out = dir / ("run" + ranks);
    done(dsv3({"train", kRun, "--model.init=", "--model.vocab_size=400", "--train.dtype=fp64",
               "--train.steps=3", sources, "--data.tokenizer=" + tokenizer, "--data.fim_rate=0.5",
               "--data.mask=document", "--train.out=" + out.string(), "--nproc", ranks}));
    last.push_back(metrics_of(out).back());
    EXPECT_TRUE(fs::exists(out / "hf/tokenizer.json"));
    for (const char* name : companions) EXPECT_TRUE(fs::exists(out / "hf" / name)) << name;
  }
  EXPECT_NEAR(last[0].at("loss").get<double>(), last[1].at("loss").get<double>(), 1e-10);
  EXPECT_EQ(last[0].at("tokens"), last[1].at("tokens"));
  const Result text =
      dsv3({"generate", "--model", dir / "run1", "--prompt", "In the", "--max-new-tokens", "3"});
  EXPECT_EQ(text.code, 0) << text.err;
}

TEST(Train, TheLogIsWhatAPersonSaw) {
  TempDir dir;
  const Result train =
      dsv3({"train", kRun, "--train.steps=3", "--data.valid=" + (kGoldens / "trajectory/text").string(),
            "--eval.every=2", "--eval.batches=2", "--train.out=" + (dir / "run").string()});
  ASSERT_EQ(train.code, 0) << train.err;
  for (const char* part : {"weights from ", " parameters, ", "3/3", "held-out loss", "weights in "})
    EXPECT_NE(train.out.find(part), std::string::npos) << part;
  EXPECT_EQ(read_file(dir / "run/log.txt"), train.out);
}

TEST(Train, WritesEachLayersLoadEverySoManySteps) {
  TempDir dir;
  const Result train = dsv3(
      {"train", kRun, "--train.steps=5", "--metrics.load_every=2", "--train.out=" + (dir / "run").string()});
  ASSERT_EQ(train.code, 0) << train.err;
  std::map<int64_t, Json> steps, loads;
  for (const Json& line : metrics_of(dir / "run"))
    (line.contains("load") ? loads : steps)[line.at("step").get<int64_t>()] = line;
  EXPECT_EQ(steps.size(), 5u);
  ASSERT_EQ(loads.size(), 2u);
  for (const int64_t step : {2, 4}) {
    const Json& load = loads.at(step).at("load");
    ASSERT_EQ(load.size(), 2u);  // one MoE layer and the MTP module's
    double worst = 0;
    int64_t dead = 0;
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(load[i].at("layer").get<int64_t>(), static_cast<int64_t>(i) + 1);
      EXPECT_LT(load[i].at("bias_min").get<double>(), load[i].at("bias_max").get<double>());
      worst = std::max(worst, load[i].at("max_vio").get<double>());
      dead += load[i].at("dead").get<int64_t>();
    }
    EXPECT_EQ(worst, steps.at(step).at("max_vio").get<double>());
    EXPECT_EQ(dead, steps.at(step).at("dead_experts").get<int64_t>());
  }
}

// A line of metrics.jsonl without the fields that time and memory fill.
Json comparable(Json line) {
  for (const char* field : {"tokens_per_s", "step_s", "data_s", "comm_s", "save_s", "mem_bytes"})
    line.erase(field);
  return line;
}

// Wide enough that operators split their work between two threads, which wait asleep: spinning would cost ten
// times the time while anything else runs.
TEST(Train, TwoProcessesGiveTheSameBytes) {
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const std::string threads : {"1", "2"}) {
      SCOPED_TRACE(dtype + ", OMP_NUM_THREADS=" + threads);
      TempDir dir;
      std::vector<std::vector<Json>> metrics;
      std::vector<std::string> weights;
      for (const fs::path& out : {dir / "a", dir / "b"}) {
        const Result train = dsv3(
            {"train", kRun, "--model.init=", "--model.hidden_size=256", "--model.moe_intermediate_size=64",
             "--data.seq_len=256", "--train.global_batch=2", "--train.micro_batch=2", "--train.steps=2",
             "--train.dtype=" + dtype, "--train.out=" + out.string()},
            {.env = {"OMP_NUM_THREADS=" + threads, "OMP_WAIT_POLICY=passive"}});
        ASSERT_EQ(train.code, 0) << train.err;
        std::vector<Json>& lines = metrics.emplace_back();
        for (const Json& line : metrics_of(out)) lines.push_back(comparable(line));
        weights.push_back(read_file(out / "hf/model.safetensors"));
      }
      EXPECT_EQ(metrics[0].size(), 2u);
      EXPECT_EQ(metrics[0], metrics[1]);
      EXPECT_GT(weights[0].size(), 1u << 20);
      EXPECT_TRUE(weights[0] == weights[1]);  // EXPECT_EQ would print them
    }
  }
}

TEST(Generate, GivesTheGoldensTokens) {
  TempDir dir;
  const fs::path golden = kGoldens / "moonlight";
  const Result result = dsv3({"generate", "--model", golden, "--tokens", golden / "prompt.npy", "--out",
                              dir / "new.npy", "--max-new-tokens", "64"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(read_file(dir / "new.npy").substr(128), read_file(golden / "generated.npy").substr(128));
}

TEST(Trace, WritesASafetensorsFileAndRefusesTokensOutsideTheVocabulary) {
  TempDir dir;
  const fs::path golden = kGoldens / "groups";
  const Result result = dsv3({"trace", "--model", golden, "--tokens", golden / "tokens.npy", "--grads",
                              "--out", dir / "trace.safetensors"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_GT(fs::file_size(dir / "trace.safetensors"), 10000u);
  // prompt of a model with a larger vocabulary
  std::string bad = read_file(golden / "tokens.npy");
  bad[bad.size() - 7] = 1;  // the last id becomes 256 and more
  write_file(dir / "bad.npy", bad);
  const Result refused =
      dsv3({"trace", "--model", golden, "--tokens", dir / "bad.npy", "--out", dir / "no.safetensors"});
  expect_failure(refused, ExitCode::content, {"bad.npy", "element"});
  EXPECT_FALSE(fs::exists(dir / "no.safetensors"));
}

TEST(BadInput, IsOneLineAndTheRightCode) {
  TempDir dir;
  const std::string golden = kGoldens / "groups", tokens = kGoldens / "groups/tokens.npy";
  auto trace = [&](const std::string& model) {
    return dsv3({"trace", "--model", model, "--tokens", tokens, "--out", dir / "out.safetensors"});
  };
  expect_failure(trace(dir / "absent"), ExitCode::usage, {"--model", "no such folder"});
  fs::create_directory(dir / "empty");
  expect_failure(trace(dir / "empty"), ExitCode::content, {"config.json"});
  fs::create_directory(dir / "damaged");
  fs::copy(fs::path(golden) / "config.json", dir / "damaged");
  write_file(dir / "damaged/model.safetensors", "short");
  expect_failure(trace(dir / "damaged"), ExitCode::content, {"model.safetensors"});
  expect_failure(dsv3({"train", kRun, "--train.device=cuda", "--train.out=" + (dir / "run").string()}),
                 ExitCode::usage, {"train.device", "no GPU"});
  expect_failure(dsv3({"train", kRun, "--optim.lr=nan"}), ExitCode::usage, {"optim.lr"});
  expect_failure(dsv3({"train", kRun, "--parallel.shard=2", "--train.out=" + (dir / "run").string()}),
                 ExitCode::usage, {"parallel"});
  // A model may know more tokens than the data, never fewer.
  expect_failure(dsv3({"train", kRun, "--train.out=" + (dir / "run").string(), "--model.vocab_size=20"}),
                 ExitCode::content, {"text.bin", "vocabulary 20"});
  expect_failure(
      dsv3({"train", kRun, "--optim.freeze=[\"*q_z_proj*\"]", "--train.out=" + (dir / "run").string()}),
      ExitCode::usage, {"optim.freeze", "q_z_proj"});
  expect_failure(dsv3({"train", dir / "absent.toml"}), ExitCode::usage, {"absent.toml"});
  expect_failure(dsv3({"train", kRun, "--train.out=" + (dir / "damaged/config.json").string()}),
                 ExitCode::usage, {"train.out", "no folder"});
  EXPECT_FALSE(fs::exists(dir / "run"));
}

// An output never takes the place of what it is made from, nor of a device.
TEST(Outputs, AreNotTheInputs) {
  TempDir dir;
  const fs::path model = dir / "model", tokens = dir / "tokens.npy";
  fs::copy(kGoldens / "groups", model, fs::copy_options::recursive);
  fs::copy(kGoldens / "groups/tokens.npy", tokens);
  fs::create_symlink(tokens, dir / "link.npy");
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  const std::string weights = read_file(model / "model.safetensors"), ids = read_file(tokens);
  for (const std::string out :
       {model / "model.safetensors", model / "new.safetensors", tokens, dir / "link.npy", dir / "fifo",
        fs::path("/dev/null"), dir.path(), dir / "absent/out"}) {
    SCOPED_TRACE(out);
    expect_failure(dsv3({"trace", "--model", model, "--tokens", tokens, "--out", out}), ExitCode::usage,
                   {"--out"});
    expect_failure(
        dsv3({"generate", "--model", model, "--tokens", tokens, "--out", out, "--max-new-tokens", "1"}),
        ExitCode::usage, {"--out"});
  }
  EXPECT_TRUE(read_file(model / "model.safetensors") == weights);
  EXPECT_TRUE(read_file(tokens) == ids);
  EXPECT_TRUE(fs::is_fifo(dir / "fifo"));
}

// A key that a command would ignore is refused, not ignored.
TEST(BadInput, KeysThatACommandDoesNotObey) {
  TempDir dir;
  const std::string model = kGoldens / "groups", tokens = kGoldens / "groups/tokens.npy";
  const std::string data = kGoldens / "trajectory/text";
  for (const char* flag : {"--data.seq_len=7", "--optim.lr=3", "--checkpoint.resume=auto", "--train.seed=3",
                           "--model.init=x", "--data.train=x"}) {
    const std::string key = std::string(flag).substr(0, std::string(flag).find('='));
    expect_failure(dsv3({"eval", "--model", model, "--data", data, flag}), ExitCode::usage, {key});
    expect_failure(dsv3({"generate", "--model", model, "--prompt", "a", flag}), ExitCode::usage, {key});
    expect_failure(dsv3({"trace", "--model", model, "--tokens", tokens, "--out", dir / "out", flag}),
                   ExitCode::usage, {key});
  }
  expect_failure(dsv3({"eval", "--model", model, "--data", data, "--batches", "-1"}), ExitCode::usage,
                 {"--batches", "an integer of 0 or more"});
  expect_failure(dsv3({"eval", "--model", model, "--data", data, "--seq-len", "0"}), ExitCode::usage,
                 {"--seq-len"});
  expect_failure(dsv3({"generate", "--model", model, "--prompt", "a", "--seed", "-1"}), ExitCode::usage,
                 {"--seed"});
}

TEST(Train, ANonFiniteModelIsNotExported) {
  TempDir dir;
  const Result result =
      dsv3({"train", kRun, "--train.dtype=fp32", "--train.steps=2", "--optim.lr=1e38", "--optim.clip=0",
            "--schedule.lr=[]", "--schedule.warmup_steps=0", "--train.out=" + (dir / "run").string()});
  expect_failure(result, ExitCode::failed, {"not finite", "hf/"});
  EXPECT_FALSE(fs::exists(dir / "run/hf"));
}

TEST(Train, EndsWithCode4WhenStepsGoOnFailing) {
  TempDir dir;
  const Result result =
      dsv3({"train", kRun, "--train.dtype=fp32", "--optim.lr=1e38", "--optim.clip=0", "--schedule.lr=[]",
            "--schedule.warmup_steps=0", "--train.max_bad_steps=3", "--train.out=" + (dir / "run").string()});
  expect_failure(result, ExitCode::bad_steps, {"3 steps in a row"});
  EXPECT_EQ(metrics_of(dir / "run").back().at("skipped").get<int>(), 3);
  EXPECT_TRUE(metrics_of(dir / "run").back().at("loss").is_null());
}

TEST(Train, ASignalEndsTheRunAfterItsStep) {
  TempDir dir;
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string out = (dir / std::to_string(signal)).string();
    const Result result = dsv3({"train", kRun, "--train.steps=1000000", "--train.out=" + out},
                               {.signal = signal, .signal_after_ms = 3000});
    EXPECT_EQ(result.code, 75) << result.err;
    EXPECT_NE(result.err.find("stopped after step"), std::string::npos) << result.err;
    EXPECT_TRUE(read_file(fs::path(out) / "log.txt").ends_with(result.err));
    EXPECT_FALSE(fs::exists(fs::path(out) / "hf"));
  }
}

TEST(Doctor, SaysWhatTheMachineOffers) {
  const Result result = dsv3({"doctor", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = parse_json(result.out, "doctor");
  EXPECT_EQ(json.at("parallel_chunks"), json.at("threads"));
}

TEST(Doctor, MeasuresAnyGroupsAndRefusesWhatItDoesNotObey) {
  const Result result = dsv3({"doctor", "--nproc", "3", "--parallel.ep=3"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("group expert       3 ranks, MB/s: all-gather "), std::string::npos)
      << result.out;
  EXPECT_EQ(result.out.find('{'), std::string::npos) << result.out;
  const Result grid = dsv3({"doctor", "--nproc", "4", "--parallel.replicate=2", "--json"});
  ASSERT_EQ(grid.code, 0) << grid.err;
  std::map<std::string, int> ranks;  // every group with more than one
  const Json measured = parse_json(grid.out, "doctor");
  for (const Json& group : measured.at("groups")) {
    ranks[group.at("group")] = group.at("ranks");
    for (const char* what : {"all_gather", "reduce_scatter", "all_reduce", "all_to_all"})
      EXPECT_GT(group.at(std::string(what) + "_MB_per_s").get<double>(), 0) << group.dump();
  }
  EXPECT_EQ(ranks,
            (std::map<std::string, int>{{"world", 4}, {"data", 2}, {"replicate", 2}, {"expert_data", 2}}));
  expect_failure(dsv3({"doctor", "--optim.lr=1"}), ExitCode::usage,
                 {"--optim.lr", "no flag of this command"});
}

// A device that is not there is the command line's mistake, in every command.
TEST(BadInput, CudaWithoutAGpu) {
  const fs::path model = kGoldens / "groups";
  TempDir dir;
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"eval", "--model", model, "--data", kGoldens / "trajectory/text",
                                 "--seq-len", "32"},
        {"generate", "--model", model, "--tokens", model / "tokens.npy", "--out", dir / "new.npy"},
        {"trace", "--model", model, "--tokens", model / "tokens.npy", "--out", dir / "trace"}}) {
    std::vector<std::string> flags = args;
    flags.push_back("--train.device=cuda");
    const Result result = dsv3(flags);
    if (result.code == 0) GTEST_SKIP() << "there is a GPU";
    expect_failure(result, ExitCode::usage, {"train.device"});
  }
}

}  // namespace
}  // namespace dsv3::test
