#pragma once
// The run folder of dsv3 train.

#include <filesystem>

#include "dsv3/base/file_lock.h"
#include "dsv3/config/run_config.h"

namespace dsv3 {

// The run's own while it lives: a second run on the folder is refused.
class RunFolder {
 public:
  // A folder that is not empty needs checkpoint.resume, and has to hold a run: nothing is ever removed from
  // another. UsageError: neither, or checkpoint.resume names a checkpoint of elsewhere and the folder has
  // some of its own.
  static void require_usable(const RunConfig& run);
  // Creates it. UsageError as above, or another run is at work in it.
  explicit RunFolder(const RunConfig& run);

  // The run begins behind `step`: writes run.toml, drops what a killed run left half-written and later lines
  // of metrics.jsonl, sets later checkpoints aside, and hf/ unless the run has ended there (as hf.passed).
  // Returns how many lines of metrics.jsonl could not be read and were dropped. UsageError: hf/ is there and
  // the run begins at 0, so no checkpoint holds what it holds.
  int64_t begin(const RunConfig& run, int64_t step, bool done) const;

 private:
  FileLock lock_;
};

}  // namespace dsv3
