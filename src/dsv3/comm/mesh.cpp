#include "dsv3/comm/mesh.h"

#include <cstdlib>

#include "dsv3/base/error.h"

namespace dsv3 {

Mesh Mesh::create(const ParallelConfig& parallel) {
  // A launcher's ranks would all train the same and write into one folder.
  for (const char* name : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* size = std::getenv(name);
    if (size && std::string_view(size) != "1")
      throw UsageError(name, "is " + printable(size) + ", this version trains in one process",
                       "start it without a launcher");
  }
  const int64_t ranks = parallel.replicate * std::max<int64_t>(parallel.shard, 1);
  if (ranks != 1 || parallel.ep != 1)
    throw UsageError("parallel",
                     "this version trains in one process, the layout asks for " + std::to_string(ranks) +
                         " ranks with ep = " + std::to_string(parallel.ep),
                     "set replicate, shard and ep to 1");
  return {};
}

}  // namespace dsv3
