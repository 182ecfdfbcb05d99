// model.init of another model: the fields that change what the weights compute are refused by name, unless
// the run file or a flag writes them itself.
#include <gtest/gtest.h>

#include "cli/ranks.h"

namespace dsv3::test {
namespace {

class ModelInit : public testing::Test {
 protected:
  ModelInit() {
    fs::create_directory(dir / "other");
    fs::copy_file(kGoldens / "trajectory/model.safetensors", dir / "other/model.safetensors");
    change(Json::object());
  }
  // The folder's config.json: the golden one with these fields.
  void change(const Json& fields) {
    Json config = read_json(kGoldens / "trajectory/config.json");
    config.update(fields);
    write_file(dir / "other/config.json", config.dump());
  }
  Result run(std::vector<std::string> flags = {}) {
    fs::remove_all(dir / "run");
    flags.push_back("--model.init=" + (dir / "other").string());
    return dsv3(train(dir / "run", flags, 1));
  }
  // Ends well, with these warnings.
  void expect_taken(const Result& result, std::initializer_list<std::string> warnings = {}) {
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(count(result.err, "\n"), static_cast<int64_t>(warnings.size())) << result.err;
    for (const std::string& warning : warnings)
      EXPECT_NE(
          result.err.find("dsv3: warning: the run's model is not that of model.init: " + warning + "\n"),
          std::string::npos)
          << result.err;
  }
  TempDir dir;
};

const Json kOther = {{"rope_theta", 5000.0},
                     {"rms_norm_eps", 1e-5},
                     {"n_group", 2},
                     {"topk_group", 1},
                     {"norm_topk_prob", false},
                     {"num_experts_per_tok", 2},
                     {"routed_scaling_factor", 1.5}};

TEST_F(ModelInit, OfAnotherModelIsRefusedByItsFields) {
  change(kOther);
  for (const char* ranks : {"1", "2"})
    expect_failure(run({"--nproc", ranks}), ExitCode::usage,
                   {"model.init: ", "/other is of another model", "rope_theta 5000.0 there, 10000.0 here",
                    "rms_norm_eps 1e-05 there, 1e-06 here", "n_group 2 there, 4 here",
                    "topk_group 1 there, 2 here", "norm_topk_prob false there, true here",
                    "num_experts_per_tok 2 there, 3 here", "routed_scaling_factor 1.5 there, 2.5 here"});
  EXPECT_FALSE(fs::exists(dir / "run/run.toml"));
  for (const Json& field : {Json{{"rope_theta", 5000}}, Json{{"norm_topk_prob", false}}}) {
    change(field);
    expect_failure(run(), ExitCode::usage, {"model.init: ", field.begin().key() + " "});
  }
  change({{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 1024}}}});
  expect_failure(run(), ExitCode::usage, {"model.init: ", "rope_scaling {", "null here"});
}

TEST_F(ModelInit, FieldsThatTheRunWritesItselfAreMeant) {
  change({{"rope_theta", 5000.0}, {"num_experts_per_tok", 2}});
  expect_taken(run({"--model.rope_theta=10000", "--model.num_experts_per_tok=3"}),
               {"num_experts_per_tok 2 there, 3 here", "rope_theta 5000.0 there, 10000.0 here"});
  expect_failure(run({"--model.rope_theta=10000"}), ExitCode::usage, {"num_experts_per_tok 2 there, 3 here"});
  // The other way: the folder's own model, but for one field.
  expect_taken(run({"--model.config=" + (dir / "other").string()}));
  expect_taken(run({"--model.config=" + (dir / "other").string(), "--model.rope_parameters.rope_theta=7000"}),
               {"rope_theta 5000.0 there, 7000.0 here"});
}

TEST_F(ModelInit, FieldsOfTheTensorsShapesAreNeverMeant) {
  expect_failure(run({"--model.vocab_size=300"}), ExitCode::usage, {"vocab_size 259 there, 300 here"});
}

TEST_F(ModelInit, WhatChangesNoComputationMayDiffer) {
  change({{"initializer_range", 0.5}, {"max_position_embeddings", 64}, {"eos_token_id", 5}});
  expect_taken(run());
}

TEST_F(ModelInit, WithoutConfigJsonTheTensorsDecide) {
  fs::remove(dir / "other/config.json");
  expect_taken(run());
  expect_failure(run({"--model.vocab_size=300"}), ExitCode::content, {"model.embed_tokens.weight"});
}

}  // namespace
}  // namespace dsv3::test
