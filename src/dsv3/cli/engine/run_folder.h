#pragma once
// The run folder of dsv3 train.

#include <filesystem>

#include "dsv3/config/run_config.h"

namespace dsv3 {

// The run's own while it lives: a second run on the folder is refused.
class RunFolder {
 public:
  // Creates it and writes run.toml. A folder that is not empty needs checkpoint.resume; what a killed run
  // left half-written is removed. UsageError: not empty, or another run is at work in it.
  explicit RunFolder(const RunConfig& run);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

 private:
  int lock_ = -1;
};

// Drops the lines of metrics.jsonl that stand behind `step`, and a line that was cut off: the run goes on
// from there.
void keep_metrics_until(const std::filesystem::path& file, int64_t step);

}  // namespace dsv3
