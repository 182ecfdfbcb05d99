#pragma once
// A run that was saved after its first and its second step.

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/checkpoint/resume.h"
#include "dsv3/checkpoint/saver.h"
#include "dsv3/convert/run_folder.h"
#include "support/files.h"
#include "support/runs.h"

namespace dsv3::test {

class TwoCheckpoints : public testing::Test {
 protected:
  TwoCheckpoints()
      : run(trajectory_run({"model.init=", "train.out=" + (dir / "run").string(), "checkpoint.resume=auto"})),
        training(run) {
    Saver saver(training.model, training.optimizer, run);
    for (int i = 0; i < 2; ++i) {
      training.trainer.step();
      saver.begin(training.trainer.state());
    }
  }
  std::optional<Resumed> resume_now() {
    return resume(training.model, training.optimizer, run,
                  [&](const std::string& line) { warnings.push_back(line); });
  }
  std::filesystem::path newest() const { return checkpoint_path(run.train.out, 2); }

  TempDir dir;
  RunConfig run;
  Training training;
  std::vector<std::string> warnings;
};

}  // namespace dsv3::test
