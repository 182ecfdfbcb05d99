// dsv3-engine bench-steps: trains bench-108m, one step for each "go" line of standard input, so that
// tools/peers/bench.py can alternate it with a peer. Prints a JSON line a step; memory at the end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "dsv3/base/philox.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/cli/engine/ranks.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/train/trainer.h"

namespace dsv3 {
namespace {

constexpr int64_t kSequences = 4, kLength = 1024;

// This rank's sequences of the step.
Batch random_batch(const Mesh& mesh, int64_t step, int64_t vocab_size) {
  const int64_t first = kSequences * mesh.rank() / mesh.world_size();
  const int64_t sequences = kSequences * (mesh.rank() + 1) / mesh.world_size() - first;
  at::Tensor ids = at::empty({sequences, kLength + 1}, at::kLong);
  int64_t* data = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i)
    data[i] = static_cast<int64_t>(philox_u64(static_cast<uint64_t>(mesh.rank()), static_cast<uint64_t>(step),
                                              static_cast<uint64_t>(i)) %
                                   static_cast<uint64_t>(vocab_size));
  MicroBatch micro;
  micro.tokens_BS = ids.narrow(1, 0, kLength).contiguous();
  micro.targets_BS = ids.narrow(1, 1, kLength).contiguous();
  return {.micro = {micro}, .first_sample = step * kSequences};
}

// Rank 0 reads the line for all.
bool told_to_go(const Mesh& mesh) {
  std::string line;
  int64_t go = mesh.rank() == 0 && std::getline(std::cin, line) && line == "go";
  return mesh.sum(std::span<const int64_t>(&go, 1), "go")[0] > 0;
}

}  // namespace

int bench_steps_command(std::vector<std::string> args) {
  CLI::App app("Steps of bench-108m on demand.", "bench-steps");
  std::string dtype = "fp32";
  app.add_option("--dtype", dtype, "fp32 or bf16")->capture_default_str();
  std::vector<std::string> flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  flags.insert(flags.begin(), {"train.dtype=" + dtype, "balance.loss=none"});
  const RunConfig run = RunConfig::from_flags(flags, ModelConfig::preset("bench-108m"));
  set_determinism(run.train.deterministic);
  const Mesh mesh = Mesh::create(run.parallel);
  speak_on_rank_zero(mesh);
  Model model(run.model, mesh, ExecOptions::from(run));
  model.initialise(0);
  Optimizer optimizer(model, run.optim);
  fmt::print(R"({{"tokens_per_step":{}}})"
             "\n",
             kSequences * kLength);
  std::fflush(stdout);
  int64_t count = 0;
  for (; told_to_go(mesh); ++count) {
    const Batch batch = random_batch(mesh, count, run.model.vocab_size);
    const auto start = std::chrono::steady_clock::now();
    Step step = model.begin_step(batch);
    Output output = step.forward(batch.micro[0]);
    const Losses losses = standard_loss(output, step.counts(), {});
    losses.total.backward();
    step.backward(std::move(output));
    optimizer.step(step.finish(), run.optim.lr, run.balance.gamma);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fmt::print(R"({{"seconds":{},"loss":{}}})"
               "\n",
               seconds, losses.lm.item<double>());
    std::fflush(stdout);
  }
  const std::vector<int64_t> memory = mesh.sum(std::vector{memory_bytes("VmRSS:"), memory_bytes("VmHWM:")},
                                               "memory");  // of all ranks together
  fmt::print(R"({{"rss_bytes":{},"peak_bytes":{}}})"
             "\n",
             memory[0], memory[1]);
  return 0;
}

}  // namespace dsv3
