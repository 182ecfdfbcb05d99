// dsv3 doctor: what this machine offers.
#include <fmt/format.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/ops/cpu/gemm.h"
#include "dsv3/ops/device.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

int doctor_command(std::vector<std::string> args) {
  CLI::App app("What this machine offers, what is wrong with it and how to mend it.", "doctor");
  bool json = false;
  app.add_flag("--json", json, "print JSON");
  if (!parse_args(app, args)) return 0;

  const bool amx = cpu::has_amx_bf16();
  int chunks = 0;
  at::parallel_for(0, 1024, 1, [&](int64_t, int64_t) {
    static std::mutex mutex;
    std::lock_guard lock(mutex);
    ++chunks;
  });
  const auto space = std::filesystem::space(std::filesystem::current_path());
  Json out = {{"torch", TORCH_VERSION},
              {"cpu", at::get_cpu_capability()},
              {"amx_bf16", amx},
              {"threads", at::get_num_threads()},
              {"parallel_chunks", chunks},
              {"bf16_products", amx ? "MKL bf16 kernels" : "widened to fp32, sgemm"},
              {"attention", "ATen flash attention, values padded to the key's width"},
              {"gpus", num_cuda_devices()},
              {"disk_free_bytes", space.available}};
  Json problems = Json::array();
  if (chunks < at::get_num_threads())
    problems.push_back("at::parallel_for runs serially: the build lacks -fopenmp");
  if (at::get_num_threads() == 1)
    problems.push_back("one thread only: set OMP_NUM_THREADS to the number of cores");
  if (space.available < (1ull << 30)) problems.push_back("less than 1 GB free in this folder");
  out["problems"] = problems;
  if (json) {
    fmt::print("{}\n", out.dump());
  } else {
    for (const auto& [key, value] : out.items())
      if (key != "problems")
        fmt::print("{:<16} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    for (const auto& problem : problems) fmt::print("problem          {}\n", problem.get<std::string>());
    if (problems.empty()) fmt::print("nothing to mend\n");
  }
  return 0;
}

}  // namespace dsv3
