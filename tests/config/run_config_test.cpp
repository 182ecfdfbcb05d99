#include "dsv3/config/run_config.h"

#include <map>

#include "config/configs.h"

namespace dsv3::test {
namespace {

constexpr const char* kRun =
    "[model]\npreset = \"tiny\"\n[data]\ntrain = \"text\"\n[optim]\nlr = 1e-3\n[train]\nsteps = 10\n";

class Run : public testing::Test {
 protected:
  RunConfig load(const std::string& text, const std::vector<std::string>& flags = {}) {
    return RunConfig::load(write_file(dir_ / "run.toml", text), flags);
  }
  RunConfig with(const std::string& lines) { return load(kRun + lines); }
  RunConfig flagged(const std::vector<std::string>& flags) { return load(kRun, flags); }
  template <class Call>
  void refused(std::initializer_list<std::string_view> parts, Call call) {
    expect_error(ExitCode::usage, parts, call);
  }
  TempDir dir_;
};

TEST_F(Run, ReadsValuesWithTheirOrigin) {
  const auto run = load(kRun, {"optim.clip=0.5"});
  EXPECT_EQ(run.train.steps, 10);
  EXPECT_EQ(run.optim.lr, 1e-3);
  EXPECT_EQ(run.origin.at("optim.lr"), (dir_ / "run.toml").string() + ":6");
  EXPECT_EQ(run.origin.at("optim.clip"), "flag");
  EXPECT_EQ(run.origin.at("optim.eps"), "default");
  EXPECT_EQ(run.origin.at("model.hidden_size"), "preset tiny");
}

TEST_F(Run, EverySectionFromOneFile) {
  const auto run = with(R"(deterministic = false
global_batch = 12
micro_batch = 4
dtype = "fp64"
max_bad_steps = 2
[parallel]
shard = 4
ep = 2
recompute = "every:3"
reshard = "never"
[ops]
backend = "aten"
grouped = "loop"
[schedule]
lr = [{tokens = 0, value = 1e-3}, {tokens = 100, value = 1e-4, shape = "cosine"}]
batch = [{steps = 5, value = 8}]
warmup_steps = 3
[mtp]
lambda = 0.1
hidden = "pre_norm"
[balance]
loss = "batch"
gamma = 0
[checkpoint]
every = 5
resume = "auto"
[eval]
every = 2
[metrics]
load_every = 7
)");
  EXPECT_FALSE(run.train.deterministic);
  EXPECT_EQ(run.parallel.recompute, "every:3");
  ASSERT_EQ(run.schedule.lr.points.size(), 2u);
  EXPECT_FALSE(run.schedule.lr.by_steps);
  EXPECT_EQ(run.schedule.lr.points[1], (SchedulePoint{100, 1e-4, "cosine"}));
  EXPECT_TRUE(run.schedule.batch.by_steps);
  EXPECT_EQ(run.balance.gamma, 0);
  EXPECT_EQ(run.checkpoint.resume, "auto");
  EXPECT_EQ(run.mtp.hidden, "pre_norm");
  EXPECT_EQ(run.metrics.load_every, 7);
}

TEST_F(Run, PathsAreRelativeToTheFileAndInFlagsToTheWorkingDirectory) {
  auto run = load(kRun);
  EXPECT_EQ(run.data.train[0].path, (dir_ / "text").string());
  EXPECT_EQ(run.train.out, (dir_ / "runs/run").string());
  run = flagged({"data.train=elsewhere/text", "data.tokenizer=byte", "train.out=/tmp/out"});
  EXPECT_EQ(run.data.train[0].path, "elsewhere/text");
  EXPECT_EQ(run.data.tokenizer, "byte");
  EXPECT_EQ(run.train.out, "/tmp/out");
  run = flagged({R"(data.train=[{path="a", weight=2}, {path="b"}, "c"])"});
  ASSERT_EQ(run.data.train.size(), 3u);
  EXPECT_EQ(run.data.train[0].weight, 2);
  EXPECT_EQ(run.data.train[1].weight, std::nullopt);
  EXPECT_EQ(run.data.train[2].path, "c");
}

TEST_F(Run, TomlRoundTrip) {
  const auto run =
      load(kRun, {"model.q_lora_rank=null", "model.rope_scaling={type=\"yarn\",factor=4}",
                  "optim.freeze=[\"*.gate\"]", "schedule.lr=[{steps=1,value=0.1,shape=\"linear\"}]",
                  "optim.betas=[0.8,0.99]", "train.seed=9"});
  const std::string text = run.to_toml();
  const auto again = RunConfig::load(write_file(dir_ / "resolved.toml", text));
  EXPECT_EQ(again.to_toml(), text);
  EXPECT_EQ(nlohmann::json(again.model.to_json()),
            nlohmann::json(run.model.to_json()));  // whatever the order
  EXPECT_FALSE(again.model.q_lora_rank);
  EXPECT_EQ(again.optim.freeze, run.optim.freeze);
  EXPECT_EQ(again.optim.beta2, 0.99);
}
TEST_F(Run, TomlRoundTripOfEveryPreset) {
  for (const std::string& preset : ModelConfig::preset_names()) {
    const std::string text = flagged({"model.preset=" + preset}).to_toml();
    EXPECT_EQ(RunConfig::load(write_file(dir_ / "again.toml", text)).to_toml(), text) << preset;
  }
}

// --- The model section.
TEST_F(Run, ModelFieldsAreOverriddenByTheirNames) {
  const auto run =
      flagged({"model.num_hidden_layers=2", "model.num_attention_heads=4", "model.rope_theta=5e4"});
  EXPECT_EQ(run.model.num_hidden_layers, 2);
  EXPECT_EQ(run.model.num_attention_heads, 4);
  EXPECT_EQ(run.model.rope_theta, 5e4);
  EXPECT_EQ(run.origin.at("model.num_hidden_layers"), "flag");
}
TEST_F(Run, NestedModelTables) {
  auto run = load(
      "[model]\npreset = \"671b\"\n[model.rope_scaling]\nfactor = 8\n[data]\ntrain = \"t\"\n[train]\nsteps = "
      "1\n");
  EXPECT_EQ(run.model.yarn->factor, 8);
  EXPECT_EQ(run.model.yarn->mscale, 1);  // the preset's
  run = flagged({"model.rope_scaling.type=yarn", "model.rope_scaling.factor=3"});
  EXPECT_EQ(run.model.yarn->factor, 3);
  run = flagged({"model.preset=671b", "model.rope_scaling=null"});
  EXPECT_FALSE(run.model.yarn);
  run = flagged({"model.preset=671b", "model.rope_parameters.rope_theta=7e3"});
  EXPECT_EQ(run.model.rope_theta, 7e3);
  EXPECT_FALSE(run.model.yarn);
}
TEST_F(Run, ModelConfigFileWithOverrides) {
  write_file(dir_ / "config.json", small_json("head_dim", 8).dump());
  const std::string text =
      "[model]\nconfig = \"config.json\"\nqk_rope_head_dim = 4\nnum_attention_heads = 4\n[data]\ntrain = "
      "\"t\"\n[train]\nsteps = 1\n";
  const auto run = load(text);
  EXPECT_EQ(run.model.vocab_size, 100);
  EXPECT_EQ(run.model.qk_rope_head_dim, 4);
  EXPECT_EQ(run.model.source["aux_loss_alpha"], 0.001);
}
TEST_F(Run, BadContentOfTheModelsFileIsContent) {
  write_file(dir_ / "config.json", small_json("n_group", 3).dump());
  expect_error(ExitCode::content, {"config.json: n_routed_experts"},
               [&] { flagged({"model.config=" + (dir_ / "config.json").string()}); });
}
TEST_F(Run, BadOverrideNamesItsPlace) {
  refused({"--model.hidden_act: \"gelu\""}, [&] { flagged({"model.hidden_act=gelu"}); });
  refused({"--model.n_group: n_routed_experts: 16"}, [&] { flagged({"model.n_group=3"}); });
  refused({"run.toml:3: model.topk_group: 9"}, [&] { load("[model]\npreset = \"tiny\"\ntopk_group = 9\n"); });
  refused({"--model.rope_scaling: factor: "},
          [&] { flagged({"model.rope_scaling={type=\"yarn\",factor=0}"}); });
}
TEST_F(Run, ModelMustComeFromOnePlace) {
  refused({"run.toml: model", "preset"}, [&] { load("[train]\nsteps = 1\n"); });
  refused({"model.preset", "excludes"}, [&] { load("[model]\nconfig = \"a\"\npreset = \"tiny\"\n"); });
  refused({"run.toml:2: model.config", "nowhere: no such"}, [&] { load("[model]\nconfig = \"nowhere\"\n"); });
  refused({"--model.preset: \"tinny\"", "tiny|bench-108m|moonlight|671b", "did you mean tiny?"},
          [&] { flagged({"model.preset=tinny"}); });
}
TEST_F(Run, FlagReplacesTheFilesChoice) {
  write_file(dir_ / "config.json", small_json().dump());
  EXPECT_EQ(flagged({"model.config=" + dir_.path().string()}).model.vocab_size, 100);
  const auto run = flagged({"train.tokens=500"});
  EXPECT_EQ(run.train.tokens, 500);
  EXPECT_EQ(run.train.steps, 0);
}

// --- What is refused, with file, line, key and the nearest valid key.
TEST_F(Run, UnknownKeys) {
  refused({"run.toml:9: train.lr: unknown key"}, [&] { with("lr = 1\n"); });
  refused({"run.toml:2: optim.weight_decy: unknown key", "did you mean optim.weight_decay?"},
          [&] { load("[optim]\nweight_decy = 1\n"); });
  refused({"run.toml:1: optm", "unknown section"}, [&] { load("[optm]\n"); });
  refused({"--train.step", "did you mean train.steps?"}, [&] { flagged({"train.step=1"}); });
  refused({"--model.hidden_sise", "model.hidden_size"}, [&] { flagged({"model.hidden_sise=1"}); });
  refused({"run.toml:1: lr", "unknown key"}, [&] { load("lr = 1\n"); });
}
TEST_F(Run, Row79Duplicates) {
  refused({"run.toml:9"}, [&] { with("steps = 11\n"); });
  refused({"--train.steps", "given twice"}, [&] { flagged({"train.steps=1", "train.steps=1"}); });
}
TEST_F(Run, Row81NaNAndNegativeLearningRates) {
  refused({"run.toml:2: optim.lr: nan"}, [&] { load("[optim]\nlr = nan\n[model]\npreset = \"tiny\"\n"); });
  refused({"--optim.lr: -1"}, [&] { flagged({"optim.lr=-1"}); });
  refused({"--optim.lr: inf"}, [&] { flagged({"optim.lr=inf"}); });
  refused({"--schedule.lr: nan"}, [&] { flagged({"schedule.lr=[{steps=0,value=nan}]"}); });
}
TEST_F(Run, Syntax) {
  refused({"run.toml:2"}, [&] { load("[model]\npreset = tiny\n"); });
  refused({"run.toml"}, [&] { load(std::string(10000, '[')); });
  refused({"run.toml"}, [&] { load("\xff\xfe"); });
  refused({"no such file"}, [&] { RunConfig::load(dir_ / "none.toml"); });
  refused({"regular"}, [&] { RunConfig::load(dir_.path()); });
}
TEST_F(Run, WrongTypes) {
  for (const char* flag : {"train.steps=many", "train.steps=1.5", "train.steps=true", "optim.lr=fast",
                           "data.shuffle=1", "optim.betas=0.9", "optim.betas=[0.9]", "optim.freeze=[1]",
                           "schedule.lr=0.1", "schedule.lr=[0.1]", "data.train=7", "data.train=[{weight=1}]",
                           "data.train=[{path=\"a\",weigth=1}]", "train.seed=2020-01-01"}) {
    refused({std::string("--") + std::string(flag).substr(0, std::string(flag).find('='))},
            [&] { flagged({flag}); });
  }
  refused({"--train.steps", "needs a value"}, [&] { flagged({"train.steps"}); });
}
TEST_F(Run, ImpossibleValues) {
  for (const char* flag : {"optim.betas=[0.9,1]",
                           "optim.betas=[-0.1,0.9]",
                           "optim.eps=0",
                           "optim.weight_decay=-1",
                           "optim.clip=-1",
                           "data.seq_len=0",
                           "data.fim_rate=1.5",
                           "train.micro_batch=0",
                           "train.global_batch=9007199254740992",
                           "schedule.batch=[{steps=1,value=2000000}]",
                           "train.seed=-1",
                           "train.max_bad_steps=0",
                           "schedule.warmup_steps=-1",
                           "schedule.lr=[{steps=-1,value=1}]",
                           "schedule.lr=[{value=1}]",
                           "schedule.lr=[{steps=1,tokens=1,value=1}]",
                           "schedule.lr=[{steps=2,value=1},{steps=1,value=1}]",
                           "schedule.lr=[{steps=1,value=1,shape=\"cubic\"}]",
                           "schedule.lr=[{steps=1,value=1},{tokens=2,value=1}]",
                           "parallel.ep=0",
                           "data.train=[{path=\"a\",weight=0}]",
                           "balance.gamma=-1",
                           "mtp.lambda=-1"}) {
    refused({std::string("--") + std::string(flag).substr(0, std::string(flag).find('='))},
            [&] { flagged({flag}); });
  }
}
TEST_F(Run, WeightsOfSourcesAreNumbersAboveZero) {
  for (const char* weight : {"0", "-1", "nan", "inf", "\"x\""}) {
    refused({"--data.valid: b: weight ", "expected a number > 0"},
            [&] { flagged({std::string("data.valid=[\"a\",{path=\"b\",weight=") + weight + "}]"}); });
  }
  EXPECT_EQ(flagged({R"(data.train=[{path="a", weight=0.3}, {path="b", weight=0.7}])"}).data.train[1].weight,
            0.7);
}
// Weights of 1 are equal shares, none are none: run.toml says which.
TEST_F(Run, WeightsAreWrittenBackWhereTheyWereGiven) {
  const auto weights = [&](const std::string& sources) {
    const RunConfig run = flagged({"data.train=" + sources});
    std::vector<std::optional<double>> all;
    for (const DataSource& source : load(run.to_toml()).data.train) all.push_back(source.weight);
    return all;
  };
  using Weights = std::vector<std::optional<double>>;
  EXPECT_EQ(weights(R"([{path="a", weight=1}, {path="b", weight=1}])"), (Weights{1, 1}));
  EXPECT_EQ(weights(R"([{path="a", weight=1}, "b"])"), (Weights{1, std::nullopt}));
  EXPECT_EQ(weights(R"(["a", {path="b"}])"), (Weights{std::nullopt, std::nullopt}));
}
TEST_F(Run, WeightsWithoutAnExactBlendAreRefused) {
  const std::string sources = R"([{path="a", weight=1}, {path="b", weight=0.12345678}])";
  refused({"--data.train: ", "1048576", "6 digits"}, [&] { flagged({"data.train=" + sources}); });
  refused({"--data.valid: ", "1048576"}, [&] { flagged({"data.valid=" + sources}); });
  refused({"run.toml:4: data.train: ", "1048576"},
          [&] { load("[model]\npreset = \"tiny\"\n[data]\ntrain = " + sources + "\n[train]\nsteps = 1\n"); });
}
TEST_F(Run, FillInTheMiddleNeedsATokenizerThatKnowsIt) {
  refused({"--data.fim_rate", "data.tokenizer"}, [&] { flagged({"data.fim_rate=0.1"}); });
  refused({"--data.fim_rate", "byte tokenizer", "leave it at 0"}, [&] {
    flagged({"data.fim_rate=0.1", "data.tokenizer=byte"});
  });
  EXPECT_EQ(flagged({"data.fim_rate=0.1", "data.tokenizer=t.json"}).data.fim_rate, 0.1);
  EXPECT_NO_THROW(flagged({"data.fim_rate=0", "data.tokenizer=byte"}));
  EXPECT_NO_THROW(flagged({"data.fim_mode=psm"}));
  refused({"--data.fim_mode: \"spm\"", "expected psm"}, [&] { flagged({"data.fim_mode=spm"}); });
  for (const char* rate : {"-0.1", "1.5", "nan"}) {
    refused({"--data.fim_rate", "from 0 to 1"}, [&] {
      flagged({std::string("data.fim_rate=") + rate, "data.tokenizer=t.json"});
    });
  }
}
TEST_F(Run, BadChoicesListTheValidOnes) {
  refused({"--train.dtype: \"bf61\"", "bf16|fp32|fp64", "did you mean bf16?"},
          [&] { flagged({"train.dtype=bf61"}); });
  for (const char* recompute : {"every:0", "every:", "every:x", "all"}) {
    refused({"--parallel.recompute", "every:N"},
            [&] { flagged({std::string("parallel.recompute=") + recompute}); });
  }
}
TEST_F(Run, Required) {
  refused({"data.train", "missing"}, [&] { load("[model]\npreset = \"tiny\"\n[train]\nsteps = 1\n"); });
  refused({"train.steps", "missing"}, [&] { load("[model]\npreset = \"tiny\"\n[data]\ntrain = \"t\"\n"); });
}

// --- Values that contradict each other.
TEST_F(Run, StepsOrTokens) {
  refused({"train.tokens", "excludes train.steps"}, [&] { with("tokens = 100\n"); });
  refused({"excludes"}, [&] { flagged({"train.steps=1", "train.tokens=1"}); });
}
TEST_F(Run, MicroBatchDividesGlobalBatch) {
  refused({"run.toml:10: train.micro_batch", "train.global_batch = 8"},
          [&] { with("global_batch = 8\nmicro_batch = 3\n"); });
  refused({"--schedule.batch"}, [&] {
    flagged({"train.micro_batch=8", "schedule.batch=[{steps=1,value=12}]"});
  });
  EXPECT_EQ(flagged({"train.global_batch=12"}).train.micro_batch, 4);
}
TEST_F(Run, ExpertRanksDivideShardAndExperts) {
  refused({"--parallel.ep", "parallel.shard = 4"}, [&] { flagged({"parallel.shard=4", "parallel.ep=3"}); });
  refused({"--parallel.ep", "n_routed_experts = 16"}, [&] { flagged({"parallel.ep=3"}); });
}
TEST_F(Run, ImpossibleOps) {
  refused({"--ops.grouped"}, [&] { flagged({"ops.backend=aten", "ops.grouped=mkl"}); });
  refused({"--ops.grouped", "fp64"}, [&] { flagged({"train.dtype=fp64", "ops.grouped=grouped_mm"}); });
  refused({"--ops.attention"}, [&] { flagged({"ops.attention=cudnn"}); });
  refused({"--ops.attention", "flash_padded"}, [&] { flagged({"ops.attention=flash"}); });
  const std::vector<std::string> as_wide = {"ops.attention=flash", "model.qk_nope_head_dim=16",
                                            "model.qk_rope_head_dim=16", "model.v_head_dim=32"};
  EXPECT_EQ(flagged(as_wide).ops.attention, "flash");
  refused({"--metrics.tensorboard", "not built yet"}, [&] { flagged({"metrics.tensorboard=true"}); });
}
// One file serves models with and without experts or MTP: a section that has nothing to act on is no error.
TEST_F(Run, SectionsWithoutAnObjectAreAllowed) {
  EXPECT_NO_THROW(load(std::string(kRun) + "[mtp]\nlambda = 0.1\n", {"model.num_nextn_predict_layers=0"}));
  EXPECT_NO_THROW(flagged({"balance.loss=none", "balance.alpha=0.1"}));
  EXPECT_NO_THROW(
      flagged({"model.first_k_dense_replace=4", "model.num_nextn_predict_layers=0", "balance.loss=none"}));
}

TEST_F(Run, DeterministicByDefaultOnCpuAlone) {
  EXPECT_TRUE(load(kRun).train.deterministic);
  EXPECT_FALSE(flagged({"train.device=cuda"}).train.deterministic);
  EXPECT_TRUE(flagged({"train.device=cuda", "train.deterministic=true"}).train.deterministic);
}

TEST_F(Run, CheckPathsNamesWhatIsMissing) {
  auto run = load(kRun);
  refused({"run.toml:4: data.train", "text.idx"}, [&] { run.check_paths(); });
  write_file(dir_ / "text.idx", "");
  run.check_paths();
  run = flagged({"model.init=nowhere"});
  refused({"--model.init", "nowhere"}, [&] { run.check_paths(); });
}

TEST_F(Run, FromFlagsAlone) {
  const auto model = *ModelConfig::preset("bench-108m");
  const auto run = RunConfig::from_flags({"balance.loss=batch", "model.rms_norm_eps=1e-5"}, model);
  EXPECT_EQ(run.balance.loss, "batch");
  EXPECT_EQ(run.model.rms_norm_eps, 1e-5);
  EXPECT_EQ(run.model.hidden_size, 512);
  refused({"--model.preset", "--model"}, [&] { RunConfig::from_flags({"model.preset=tiny"}, model); });
  EXPECT_TRUE(RunConfig::from_flags({}).data.train.empty());
}

TEST_F(Run, ResolvedListsEveryKeyOnceWithItsOrigin) {
  std::map<std::string, RunConfig::Value> values;
  for (const auto& value : flagged({"balance.loss=none"}).resolved()) {
    EXPECT_TRUE(values.emplace(value.key, value).second) << value.key;
  }
  EXPECT_EQ(values.at("balance.loss").value, "none");
  EXPECT_EQ(values.at("balance.loss").origin, "flag");
  EXPECT_EQ(values.at("model.n_group").value, 4);
  EXPECT_EQ(values.at("optim.betas").value, parsed("[0.9, 0.95]"));
}

TEST(RunKeys, HelpNamesEveryKey) {
  const std::string help = run_keys_help();
  for (const auto& value : RunConfig::from_flags({}).resolved()) {
    if (value.key.starts_with("model.") && value.key != "model.init") continue;
    EXPECT_NE(help.find("--" + value.key + " "), help.npos) << value.key;
  }
}

TEST(Nearest, SmallestEditDistance) {
  EXPECT_EQ(nearest("optm.lr", {"optim.eps", "optim.lr", "train.lr"}), "optim.lr");
  EXPECT_EQ(nearest("x", {}), "");
}

}  // namespace
}  // namespace dsv3::test
