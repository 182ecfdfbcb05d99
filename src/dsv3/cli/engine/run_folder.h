#pragma once
// The run folder of dsv3 train.

#include <filesystem>

#include "dsv3/config/run_config.h"

namespace dsv3 {

// The run's own while it lives: a second run on the folder is refused.
class RunFolder {
 public:
  // Creates it. A folder that is not empty needs checkpoint.resume. UsageError: not empty, or another run is
  // at work in it.
  explicit RunFolder(const RunConfig& run);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  // The run begins behind `step`: writes run.toml, drops what a killed run left half-written and later lines
  // of metrics.jsonl, sets later checkpoints aside, and drops hf/ unless the run has ended there.
  void begin(const RunConfig& run, int64_t step, bool done) const;

 private:
  int lock_ = -1;
};

}  // namespace dsv3
