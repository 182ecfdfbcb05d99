#pragma once
// Several ranks of the real program on the text of the committed trajectory.

#include "dsv3/base/json.h"
#include "launch/job.h"

namespace dsv3::test {

namespace fs = std::filesystem;
inline const fs::path kGoldens = fs::path(DSV3_SOURCE_DIR) / "tests/golden";
inline const std::string kRun = kGoldens / "trajectory/run.toml";
inline const std::string kText = kGoldens / "trajectory/text";

// The lines of metrics.jsonl without what time and memory fill.
inline std::vector<Json> metrics_of(const fs::path& run) {
  std::vector<Json> lines;
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    lines.push_back(parse_json(line, "metrics.jsonl"));
    for (const char* key : {"tokens_per_s", "step_s", "data_s", "comm_s", "save_s", "mem_bytes"})
      lines.back().erase(key);
  }
  return lines;
}

inline std::vector<std::string> train(const fs::path& out, std::vector<std::string> more = {},
                                      int64_t steps = 3) {
  std::vector<std::string> args = {"train", kRun, "--train.steps=" + std::to_string(steps),
                                   "--train.global_batch=4", "--train.out=" + out.string()};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

inline std::unique_ptr<Job> start(std::vector<std::string> args) {
  return std::make_unique<Job>(std::move(args), std::vector<std::string>{"DSV3_ENGINE="});
}

}  // namespace dsv3::test
