#include "cli/run.h"
#include "dsv3/base/json.h"

namespace dsv3::test {
namespace {

class ConfigCommand : public testing::Test {
 protected:
  ConfigCommand() {
    write_file(
        dir_ / "run.toml",
        "[model]\npreset = \"tiny\"\n[data]\ntrain = \"text\"\n[optim]\nlr = 1e-3\n[train]\nsteps = 10\n");
  }
  Result config(std::vector<std::string> args, const RunOptions& options = {}) {
    args.insert(args.begin(), "config");
    return dsv3(args, {.env = options.env, .cwd = dir_.path(), .out_to = options.out_to});
  }
  TempDir dir_;
};

TEST_F(ConfigCommand, ShowsValuesWithTheirOrigin) {
  const Result result = config({"show", "run.toml", "--optim.clip=0.5", "--train.seed", "7"});
  EXPECT_EQ(result.code, 0) << result.err;
  const auto line = [&](const std::string& key) {
    const size_t begin = result.out.find(key + " = ");
    return begin == std::string::npos ? "" : result.out.substr(begin, result.out.find('\n', begin) - begin);
  };
  EXPECT_NE(line("optim.lr").find("0.001"), std::string::npos);
  EXPECT_NE(line("optim.lr").find("# run.toml:6"), std::string::npos);
  EXPECT_NE(line("optim.clip").find("# flag"), std::string::npos);
  EXPECT_NE(line("train.seed").find("= 7"), std::string::npos);
  EXPECT_NE(line("optim.eps").find("# default"), std::string::npos);
  EXPECT_NE(line("model.hidden_size").find("# preset tiny"), std::string::npos);
}

TEST_F(ConfigCommand, ShowsJson) {
  const Result result = config({"show", "run.toml", "--json"});
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json["optim.lr"]["value"], 1e-3);
  EXPECT_EQ(json["optim.lr"]["origin"], "run.toml:6");
  EXPECT_EQ(json["model.q_lora_rank"]["value"], 96);
}

TEST_F(ConfigCommand, CheckWantsTheDataToExist) {
  expect_failure(config({"check", "run.toml"}), ExitCode::usage, {"run.toml:4: data.train", "text.idx"});
  const auto text = std::filesystem::path(DSV3_SOURCE_DIR) / "tests/golden/trajectory/text";
  for (const char* kind : {".idx", ".bin"}) std::filesystem::copy(text.string() + kind, dir_.path());
  const Result result = config({"check", "run.toml", "--data.seq_len=32"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("run.toml: ok"), std::string::npos);
  EXPECT_EQ(parse_json(config({"check", "run.toml", "--json", "--data.seq_len=32"}).out, "stdout")["ok"],
            true);
}

// What train would refuse at its start.
TEST_F(ConfigCommand, CheckOpensTheData) {
  for (const char* kind : {".idx", ".bin"})
    std::filesystem::copy(
        std::filesystem::path(DSV3_SOURCE_DIR) / "tests/golden/trajectory" / (std::string("text") + kind),
        dir_.path());
  expect_failure(config({"check", "run.toml", "--data.seq_len=1000000"}), ExitCode::content, {"text.bin"});
  write_file(dir_ / "text.json", R"({"largest_id": 1000})");
  expect_failure(config({"check", "run.toml", "--data.seq_len=32", "--model.vocab_size=300"}),
                 ExitCode::content, {"text.json", "largest_id"});
  std::filesystem::remove(dir_ / "text.json");
  write_file(dir_ / "text.idx", "");
  expect_failure(config({"check", "run.toml"}), ExitCode::content, {"text.idx"});
  expect_failure(config({"check", "run.toml", "--metrics.tensorboard=true"}), ExitCode::usage,
                 {"metrics.tensorboard"});
}

TEST_F(ConfigCommand, UsageErrors) {
  expect_failure(config({"show"}), ExitCode::usage, {"RUN.toml"});
  expect_failure(config({"sow", "run.toml"}), ExitCode::usage, {"sow"});
  expect_failure(config({"show", "none.toml"}), ExitCode::usage, {"none.toml: no such file"});
  expect_failure(config({"show", "run.toml", "more"}), ExitCode::usage, {"more: unexpected argument"});
  expect_failure(config({"show", "run.toml", "--jsn"}), ExitCode::usage, {"--jsn: unknown flag", "--json"});
  expect_failure(config({"show", "run.toml", "--json", "--json"}), ExitCode::usage, {"--json"});
  expect_failure(config({"show", "run.toml", "--optim.lrr=1"}), ExitCode::usage,
                 {"--optim.lrr: unknown key", "optim.lr"});
  expect_failure(config({"show", "run.toml", "--optim.lr"}), ExitCode::usage, {"--optim.lr: needs a value"});
  expect_failure(config({"show", "run.toml", "--optim.lr", "-1"}), ExitCode::usage,
                 {"--optim.lr: -1, expected a number >= 0"});
  expect_failure(config({"show", "run.toml", "--optim.lr=nan"}), ExitCode::usage, {"--optim.lr: nan"});
  expect_failure(config({"show", "run.toml", "--train.seed=1", "--train.seed=1"}), ExitCode::usage,
                 {"--train.seed: given twice"});
  write_file(dir_ / "bad.toml", "[optim]\nlearning_rate = 1\n");
  expect_failure(config({"show", "bad.toml"}), ExitCode::usage,
                 {"bad.toml:2: optim.learning_rate: unknown key"});
}

TEST_F(ConfigCommand, ContentErrorsOfTheModelsFile) {
  write_file(dir_ / "config.json", R"({"model_type": "deepseek_v3", "hidden_act": "gelu"})");
  const Result result = config({"show", "run.toml", "--model.config=config.json"});
  expect_failure(result, ExitCode::content, {"config.json: hidden_act: \"gelu\""});
}

TEST_F(ConfigCommand, OutputThatCannotBeWritten) {
  expect_failure(config({"show", "run.toml"}, {.out_to = "/dev/full"}), ExitCode::failed,
                 {"standard output"});
}

}  // namespace
}  // namespace dsv3::test
