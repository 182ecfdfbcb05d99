#include "dsv3/comm/launch_env.h"

#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

std::optional<std::string> text(const char* name) {
  const char* value = std::getenv(name);
  if (!value || !*value) return {};
  return value;
}

int number(const char* name, int64_t min, int64_t max) {
  const std::optional<std::string> value = text(name);
  if (!value) throw UsageError(name, "is not set", "start through torchrun, mpirun, srun or --nproc");
  int64_t out = 0;
  const char* last = value->data() + value->size();
  const auto [end, error] = std::from_chars(value->data(), last, out);
  if (error != std::errc() || end != last || out < min || out > max)
    throw UsageError(name, "is '" + printable(*value) + "', expected " + std::to_string(min) + " to " +
                               std::to_string(max));
  return static_cast<int>(out);
}

constexpr int kMaxWorld = 1 << 20;

// rank_name's value has to be below size_name's.
void read_pair(const char* rank_name, const char* size_name, int& rank, int& size) {
  size = number(size_name, 1, kMaxWorld);
  rank = number(rank_name, 0, kMaxWorld);
  if (rank >= size)
    throw UsageError(rank_name, "is " + std::to_string(rank) + ", " + size_name + " is " +
                                    std::to_string(size) + ": ranks count from 0");
}

void read_address(LaunchEnv& env) {
  env.host = text("MASTER_ADDR").value_or("");
  if (env.host.empty())
    throw UsageError("MASTER_ADDR", "is not set", "name the host of rank 0, and MASTER_PORT");
  env.port = number("MASTER_PORT", 1, 65535);
}

// A folder that the ranks of one host agree on without talking: job names are unique on it.
std::string job_folder(const std::string& job) {
  const std::filesystem::path tmp = text("TMPDIR").value_or("/tmp");
  return tmp / ("dsv3-" + std::to_string(::getuid()) + "-" + job);
}

// Under mpirun and srun the address is given by hand, or all ranks are on one host and meet in a folder.
void meet(LaunchEnv& env, const std::string& job) {
  if (text("MASTER_ADDR")) {
    read_address(env);
  } else if (env.one_host()) {
    env.folder = job_folder(job);
  } else {
    throw UsageError("MASTER_ADDR", "is not set and the ranks are on several hosts",
                     "export MASTER_ADDR (the host of rank 0) and MASTER_PORT to all ranks");
  }
}

// The part of a job's id that is safe in a file name.
std::string safe(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  return name;
}

}  // namespace

LaunchEnv LaunchEnv::read() {
  LaunchEnv env;
  if (const auto folder = text("DSV3_RUN_FOLDER")) {
    env.launcher = Launcher::own;
    read_pair("RANK", "WORLD_SIZE", env.rank, env.world);
    env.local_rank = env.rank;
    env.local_world = env.world;
    env.folder = *folder;
  } else if (text("RANK") || text("WORLD_SIZE")) {
    env.launcher = Launcher::torchrun;
    read_pair("RANK", "WORLD_SIZE", env.rank, env.world);
    // torchrun may itself be started on each host by one of these; a step of one task is a shell.
    for (const char* other : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"})
      if (text(other) && !text("TORCHELASTIC_RUN_ID") && number(other, 1, kMaxWorld) != env.world &&
          number(other, 1, kMaxWorld) != 1)
        throw UsageError("WORLD_SIZE",
                         "is " + std::to_string(env.world) + ", " + other + " is " + *text(other),
                         "two launchers are at work: unset one's variables");
    if (env.world == 1) return env;
    if (text("LOCAL_RANK") || text("LOCAL_WORLD_SIZE"))
      read_pair("LOCAL_RANK", "LOCAL_WORLD_SIZE", env.local_rank, env.local_world);
    else
      env.local_world = 0;
    read_address(env);
    env.agent_store = text("TORCHELASTIC_USE_AGENT_STORE") == "True";
    env.prefix = "restart " + text("TORCHELASTIC_RESTART_COUNT").value_or("0");
    env.job = text("TORCHELASTIC_RUN_ID").value_or("");
  } else if (text("OMPI_COMM_WORLD_SIZE")) {
    env.launcher = Launcher::mpirun;
    read_pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", env.rank, env.world);
    if (env.world == 1) return env;
    read_pair("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", env.local_rank, env.local_world);
    env.job = text("PMIX_NAMESPACE").value_or("");
    meet(env, "mpi-" + safe(env.job.empty() ? std::to_string(::getppid()) : env.job));
  } else if (text("SLURM_STEP_NUM_TASKS") && text("SLURM_PROCID") && text("SLURM_LOCALID")) {
    // Not SLURM_NTASKS: a batch script has it too, and is no rank.
    env.launcher = Launcher::srun;
    read_pair("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", env.rank, env.world);
    if (env.world == 1) return env;
    env.local_rank = number("SLURM_LOCALID", 0, kMaxWorld);
    env.local_world = text("SLURM_STEP_NUM_NODES") == "1" ? env.world : 0;
    env.job = text("SLURM_JOB_ID").value_or("0") + "." + text("SLURM_STEP_ID").value_or("0") + "." +
              text("SLURM_RESTART_COUNT").value_or("0");
    meet(env, "slurm-" + safe(env.job));
  } else if (text("PMI_SIZE")) {
    env.launcher = Launcher::mpirun;
    read_pair("PMI_RANK", "PMI_SIZE", env.rank, env.world);
    if (env.world == 1) return env;
    if (text("MPI_LOCALNRANKS"))
      read_pair("MPI_LOCALRANKID", "MPI_LOCALNRANKS", env.local_rank, env.local_world);
    else
      env.local_world = 0;
    meet(env, "pmi-" + std::to_string(::getppid()));
  }
  if (env.local_world > env.world)
    throw UsageError("local ranks", "are " + std::to_string(env.local_world) + ", the world has " +
                                        std::to_string(env.world));
  return env;
}

}  // namespace dsv3
