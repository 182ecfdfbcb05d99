// dsv3 doctor: what this machine offers.
#include <fmt/format.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <thread>

#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/cli/engine/load_model.h"
#include "dsv3/cli/engine/ranks.h"
#include "dsv3/config/run_config.h"
#include "dsv3/ops/cpu/gemm.h"
#include "dsv3/ops/device.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

// Bytes a second of payload through a group, the median of five calls after one.
double rate(Group& group, int64_t bytes, const std::function<void()>& call) {
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    if (i > 0)
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + 2, seconds.end());
  return group.size() > 1 ? static_cast<double>(bytes) / seconds[2] : 0;
}

// Each group of the mesh with more than one rank: how many are in it (of rank 0) and what it moves.
Json measure_groups(const Mesh& mesh) {
  constexpr int64_t kBytes = 16 << 20;
  Json out = Json::array();
  for (Group* group : {&mesh.world(), &mesh.data(), &mesh.replicate(), &mesh.expert(), &mesh.expert_data()}) {
    const int64_t size = group->size();
    if (size == 1) continue;
    const int64_t part = kBytes / 4 / size, whole = part * size;
    const at::Tensor shard = at::ones({part}), full = at::ones({whole}), other = at::empty({whole});
    const SlotRows rows(static_cast<size_t>(size), part);
    const auto mb = [](double bytes_per_s) { return std::round(bytes_per_s / 1e6); };
    out.push_back(
        {{"group", group->name()},
         {"ranks", size},
         {"all_gather_MB_per_s",
          mb(rate(*group, kBytes, [&] { group->all_gather(full, shard, "doctor").wait(); }))},
         {"reduce_scatter_MB_per_s",
          mb(rate(*group, kBytes, [&] { group->reduce_scatter(shard, full, "doctor").wait(); }))},
         {"all_reduce_MB_per_s", mb(rate(*group, kBytes, [&] { group->all_reduce(full, "doctor").wait(); }))},
         {"all_to_all_MB_per_s",
          mb(rate(*group, kBytes, [&] { group->all_to_all(other, full, rows, rows, "doctor").wait(); }))}});
  }
  return out;
}

}  // namespace

int doctor_command(std::vector<std::string> args) {
  CLI::App app("What this machine offers, what is wrong with it and how to mend it.", "dsv3 doctor");
  app.footer(std::string(kNprocHelp) + "\n  keys of a run, listed by dsv3 config --help: --parallel.*");
  bool json = false;
  app.add_flag("--json", json, "print JSON");
  const std::vector<std::string> flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  require_obeyed(flags, {"parallel."});
  // No model is asked for: one with as many experts as ranks, that any ep divides.
  ModelConfig model;
  model.n_routed_experts = LaunchEnv::read().world;
  model.n_group = model.topk_group = model.num_experts_per_tok = 1;
  const Mesh mesh = Mesh::create(RunConfig::from_flags(flags, model).parallel);
  speak_on_rank_zero(mesh);

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
  if (mesh.world_size() > 1) out["groups"] = measure_groups(mesh);
  Json problems = Json::array();
  if (chunks < at::get_num_threads())
    problems.push_back("at::parallel_for runs serially: the build lacks -fopenmp");
  if (const auto cores = std::thread::hardware_concurrency();
      at::get_num_threads() * mesh.world_size() < static_cast<int>(cores))
    problems.push_back(fmt::format("{} of {} cores are used: set OMP_NUM_THREADS",
                                   at::get_num_threads() * mesh.world_size(), cores));
  if (space.available < (1ull << 30)) problems.push_back("less than 1 GB free in this folder");
  out["problems"] = problems;
  if (json) {
    fmt::print("{}\n", out.dump());
  } else {
    for (const auto& [key, value] : out.items())
      if (!value.is_array())
        fmt::print("{:<16} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    for (const auto& group : out.value("groups", Json::array()))
      fmt::print(
          "group {:<12} {} ranks, MB/s: all-gather {}, reduce-scatter {}, all-reduce {}, all-to-all {}\n",
          group["group"].get<std::string>(), group["ranks"].dump(), group["all_gather_MB_per_s"].dump(),
          group["reduce_scatter_MB_per_s"].dump(), group["all_reduce_MB_per_s"].dump(),
          group["all_to_all_MB_per_s"].dump());
    for (const auto& problem : problems) fmt::print("problem          {}\n", problem.get<std::string>());
    if (problems.empty()) fmt::print("nothing to mend\n");
  }
  return 0;
}

}  // namespace dsv3
