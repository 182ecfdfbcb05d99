#pragma once
// Which rank this process is, from what its launcher put into the environment.

#include <cstdint>
#include <string>

namespace dsv3 {

struct LaunchEnv {
  enum class Launcher { none, own, torchrun, mpirun, srun };
  Launcher launcher = Launcher::none;
  int rank = 0, world = 1;
  int local_rank = 0, local_world = 1;  // on this host; local_world 0: unknown
  // Where the ranks meet: a folder of this host (a FileStore in it), or a host and a port (a TCPStore).
  std::string folder;
  std::string host;
  int port = 0;
  bool agent_store = false;  // torchrun's agent serves the store: rank 0 is a client too
  std::string prefix;        // of keys: a restart does not read the keys of the start before
  std::string job;           // the launcher's name of the job, equal on its ranks; "": it has none

  bool one_host() const { return local_world == world; }

  // Order: `dsv3 --nproc` (DSV3_RUN_FOLDER), torchrun (RANK, WORLD_SIZE), mpirun (OMPI_COMM_WORLD_*, PMI_*),
  // srun (SLURM_*, in a job step only). UsageError naming the variable when one is missing, out of range or
  // contradicts another.
  static LaunchEnv read();
};

}  // namespace dsv3
