#pragma once
// The ranks of a run: world = replicate × shard, with ep dividing shard.

#include "dsv3/config/run_config.h"

namespace dsv3 {

class Mesh {
 public:
  // One process. Layouts of more than one rank are UsageError until the parallel rooms hold them
  // (docs/roadmap.md).
  static Mesh create(const ParallelConfig& parallel);

  int rank() const { return 0; }
  int world() const { return 1; }
};

}  // namespace dsv3
