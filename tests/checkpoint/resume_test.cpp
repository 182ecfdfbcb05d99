// Training goes on from a checkpoint as if it had not stopped, on the same ranks bit for bit, on others in
// fp64.
#include "dsv3/checkpoint/resume.h"

#include <gtest/gtest.h>

#include <random>

#include "checkpoint/two_checkpoints.h"
#include "dsv3/convert/checkpoint.h"
#include "support/ranks.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::Training;
using test::trajectory_run;

using Flags = std::vector<std::string>;
Flags operator+(Flags a, const Flags& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// What the steps said: equal texts are equal bits.
std::string line_of(StepMetrics metrics) {
  metrics.step_s = metrics.data_s = metrics.comm_s = 0;
  metrics.mem_bytes = 0;
  return json_line(metrics);
}

struct Stretch {
  std::vector<std::string> lines;
  std::map<std::string, at::Tensor> weights;
};

// Trains from checkpoint `from` (0: from the beginning) to step `to` on the ranks of the layout, saves there,
// and gives what rank 0 saw.
Stretch train(const MeshLayout& layout, const Flags& flags, const fs::path& out, int64_t from, int64_t to,
              const test::RankOptions& options = {}) {
  const RunConfig run = trajectory_run(flags + Flags{"model.init=", "train.out=" + out.string(),
                                                     "parallel.replicate=" + std::to_string(layout.replicate),
                                                     "parallel.shard=" + std::to_string(layout.shard),
                                                     "parallel.ep=" + std::to_string(layout.ep)});
  Stretch stretch;
  test::run_ranks(
      layout,
      [&](const Mesh& mesh) {
        Training training(run, mesh);
        if (from > 0)
          training.trainer.resume(
              load_checkpoint(training.model, training.optimizer, checkpoint_path(out, from)).train);
        Saver saver(training.model, training.optimizer, run);
        std::vector<std::string> lines;
        while (training.trainer.state().step < to) {
          lines.push_back(line_of(training.trainer.step()));
          saver.poll();
        }
        saver.begin(training.trainer.state());
        saver.poll(/*wait=*/true);
        EXPECT_EQ(saver.last_step(), to);
        std::map<std::string, at::Tensor> weights;
        for (const ParamSpec& spec : training.model.table().params)
          weights[spec.name] = test::whole(training.model, spec).clone();
        if (mesh.rank() == 0) stretch = {lines, weights};
      },
      options);
  return stretch;
}

struct Case {
  const char* name;
  MeshLayout layout;
  Flags flags;
};
void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }
class Resume : public testing::TestWithParam<Case> {};

// Schedules of the learning rate, λ and γ, and the warm-up, are under way at the stop.
TEST_P(Resume, TwiceSixStepsAreTwelve) {
  const test::TempDir dir;
  const auto& [name, layout, flags] = GetParam();
  const Stretch all = train(layout, flags, dir / "all", 0, 12);
  const Stretch first = train(layout, flags, dir / "two", 0, 6);
  const Stretch second = train(layout, flags, dir / "two", 6, 12);
  std::vector<std::string> lines = first.lines;
  lines.insert(lines.end(), second.lines.begin(), second.lines.end());
  EXPECT_EQ(lines, all.lines);
  for (const auto& [parameter, tensor] : all.weights)
    EXPECT_TRUE(second.weights.at(parameter).equal(tensor)) << parameter;
}

INSTANTIATE_TEST_SUITE_P(
    All, Resume,
    testing::Values(Case{"One", {1, 1, 1}, {"train.dtype=fp32"}},
                    Case{"One_bf16_moments",
                         {1, 1, 1},
                         {"train.dtype=bf16", "optim.moments=bf16", "optim.freeze=[\"*.embed_tokens.*\"]"}},
                    Case{"Shard2Ep2_depth2_async",
                         {1, 2, 2},
                         {"train.dtype=fp32", "model.num_nextn_predict_layers=2", "train.global_batch=4",
                          "checkpoint.async=true"}},
                    Case{"Replicate2Shard2Ep2_fp64", {2, 2, 2}, {"train.global_batch=5"}},
                    Case{"Shard4Ep2_tied",
                         {1, 4, 2},
                         {"train.dtype=fp32", "model.tie_word_embeddings=true", "train.global_batch=4"}}),
    [](const auto& info) { return info.param.name; });

// The ranks of a program's own groups need not stand as ours do: each unit is still saved by one replica,
// whole.
TEST(Reshaped, FromGroupsWhoseReplicasAreInnermost) {
  const test::TempDir dir;
  const Flags flags = {"train.global_batch=4"};
  const Stretch saved = train({2, 2, 2}, flags, dir / "run", 0, 2, {.replicas_innermost = true});
  const Stretch loaded = train({1, 1, 1}, flags, dir / "run", 2, 2);
  for (const auto& [parameter, tensor] : saved.weights)
    EXPECT_TRUE(loaded.weights.at(parameter).equal(tensor)) << parameter;
}

TEST(Reshaped, OneTwoFourOneRanksInFp64) {
  const test::TempDir dir;
  const Flags flags = {"train.global_batch=4"};
  const Stretch all = train({1, 1, 1}, flags, dir / "all", 0, 12);
  train({1, 1, 1}, flags, dir / "run", 0, 3);
  train({1, 2, 2}, flags, dir / "run", 3, 6);
  train({2, 2, 1}, flags, dir / "run", 6, 9);
  const Stretch last = train({1, 1, 1}, flags, dir / "run", 9, 12);
  for (const auto& [parameter, tensor] : all.weights)
    EXPECT_LE(test::relative_error(last.weights.at(parameter), tensor), 1e-9) << parameter;
}

TEST(Saving, KeepsTheLastOnesAndEveryMth) {
  const test::TempDir dir;
  const RunConfig run = trajectory_run({"model.init=", "train.out=" + (dir / "run").string(),
                                        "checkpoint.keep_last=2", "checkpoint.keep_every=3"});
  Training training(run);
  Saver saver(training.model, training.optimizer, run);
  for (int i = 0; i < 8; ++i) {
    training.trainer.step();
    saver.begin(training.trainer.state());
  }
  EXPECT_EQ(list_checkpoints(run.train.out), (std::vector<int64_t>{8, 7, 6, 3}));
}

TEST(Saving, FailuresAreToldAndEndTheRunAfterK) {
  const test::TempDir dir;
  const RunConfig run =
      trajectory_run({"model.init=", "train.out=" + (dir / "run").string(), "checkpoint.max_failures=2"});
  Training training(run);
  Saver saver(training.model, training.optimizer, run);
  training.trainer.step();
  saver.begin(training.trainer.state());
  // A file stands where the folder of the next one would be made.
  training.trainer.step();
  const fs::path in_the_way = checkpoint_path(run.train.out, 2).string() + ".tmp";
  fs::create_directories(dir / "elsewhere");
  fs::rename(fs::path(run.train.out) / "checkpoints", dir / "elsewhere/checkpoints");
  test::write_file(fs::path(run.train.out) / "checkpoints", "");
  EXPECT_TRUE(saver.begin(training.trainer.state())
                  .starts_with("warning: the checkpoint of step 2 could not be saved"));
  EXPECT_THROW(saver.begin(training.trainer.state()), RunError);
  EXPECT_EQ(saver.last_step(), 1);
}

class Damaged : public test::TwoCheckpoints {
 protected:
  // A bit of the middle of a file of the newest checkpoint.
  void damage(const std::string& name) {
    const fs::path path = newest() / name;
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(fs::file_size(path) / 2);
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(byte);
  }
};

TEST_F(Damaged, TheNewestIsTaken) {
  EXPECT_EQ(resume_now()->train.step, 2);
  EXPECT_TRUE(warnings.empty());
}

TEST_F(Damaged, ADamagedOneIsNamedAndPassedBy) {
  for (const char* name : {"__0_0.distcp", ".metadata", "manifest.json", "config.json", "run.toml"}) {
    SCOPED_TRACE(name);
    warnings.clear();
    damage(name);
    EXPECT_EQ(resume_now()->train.step, 1);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("step-2"), std::string::npos) << warnings[0];
    EXPECT_NE(warnings[0].find(name), std::string::npos) << warnings[0];
    damage(name);  // mends it
  }
}

// Random bits of all files of a checkpoint, each file in proportion to its size but at least a few of each:
// verify and the load find every one, and name the file. DSV3_LONG_TESTS: 1,500 of them.
TEST_F(Damaged, NoSingleBitGoesUnseen) {
  const fs::path folder = newest();
  std::vector<fs::path> files;
  uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files.push_back(entry.path());
    bytes += fs::file_size(entry.path());
  }
  std::ranges::sort(files);
  ASSERT_GE(files.size(), 5u);
  const double flips = std::getenv("DSV3_LONG_TESTS") != nullptr ? 1500 : 150;
  std::mt19937_64 random(7);
  int64_t flipped = 0;
  for (const fs::path& file : files) {
    const uintmax_t size = fs::file_size(file);
    const auto count =
        5 + static_cast<int64_t>(flips * static_cast<double>(size) / static_cast<double>(bytes));
    for (int64_t i = 0; i < count; ++i, ++flipped) {
      const uint64_t bit = random() % (8 * size);
      const auto flip = [&] {
        std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
        stream.seekg(static_cast<std::streamoff>(bit / 8));
        const char byte = static_cast<char>(stream.get() ^ (1 << bit % 8));
        stream.seekp(static_cast<std::streamoff>(bit / 8));
        stream.put(byte);
      };
      flip();
      const std::string name = file.filename().string();
      SCOPED_TRACE(name + ", bit " + std::to_string(bit));
      std::string found;
      try {
        const VerifyResult verified = verify_checkpoint(folder, 1);
        for (const Damage& damage : verified.damaged) found += damage.file + " ";
      } catch (const Error& error) {
        found = error.what();
      }
      EXPECT_NE(found.find(name), std::string::npos) << found;
      warnings.clear();
      EXPECT_EQ(resume_now()->train.step, 1);
      ASSERT_EQ(warnings.size(), 1u);
      EXPECT_NE(warnings[0].find(name), std::string::npos) << warnings[0];
      flip();
    }
  }
  EXPECT_GE(flipped, static_cast<int64_t>(flips));
  EXPECT_EQ(resume_now()->train.step, 2);
}

TEST_F(Damaged, AMissingFileIsNamed) {
  fs::remove(newest() / "__0_0.distcp");
  EXPECT_EQ(resume_now()->train.step, 1);
  EXPECT_NE(warnings.at(0).find("__0_0.distcp"), std::string::npos) << warnings[0];
}

TEST_F(Damaged, WhenNoneIsValidTheRunDoesNotBeginAnew) {
  fs::remove(checkpoint_path(run.train.out, 1) / ".metadata");
  fs::remove(newest() / ".metadata");
  test::expect_input_error({"none of its checkpoints is valid"}, [&] { resume_now(); });
}

TEST_F(Damaged, AnUnfinishedOneIsNoCheckpoint) {
  fs::rename(newest(), newest().string() + ".tmp");
  EXPECT_EQ(resume_now()->train.step, 1);
  EXPECT_TRUE(warnings.empty());
}

TEST_F(Damaged, AnotherModelIsRefusedWithItsFields) {
  const RunConfig other = trajectory_run({"model.init=", "model.vocab_size=300", "model.rope_theta=5000",
                                          "checkpoint.resume=" + newest().string()});
  Training wrong(other);
  test::expect_error(ExitCode::usage, {"step-2", "vocab_size", "300 here", "rope_theta"},
                     [&] { resume(wrong.model, wrong.optimizer, other, [](const std::string&) {}); });
}

TEST(Auto, WithoutACheckpointThereIsNothingToResume) {
  const test::TempDir dir;
  const RunConfig run =
      trajectory_run({"model.init=", "train.out=" + (dir / "run").string(), "checkpoint.resume=auto"});
  Training training(run);
  EXPECT_FALSE(resume(training.model, training.optimizer, run, [](const std::string&) {}));
}

}  // namespace
}  // namespace dsv3
