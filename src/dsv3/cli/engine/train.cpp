// dsv3 train: a run from its file.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <sstream>
#include <utility>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/checkpoint/resume.h"
#include "dsv3/checkpoint/saver.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/cli/engine/load_model.h"
#include "dsv3/cli/engine/run_folder.h"
#include "dsv3/cli/engine/run_log.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/run_folder.h"
#include "dsv3/data/prefix_info.h"
#include "dsv3/train/trainer.h"

namespace dsv3 {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void stop_after_step(int signal) {
  if (g_signal != 0) ::_exit(128 + signal);
  g_signal = signal;
}

// While it lives the first SIGINT or SIGTERM ends the run after its step and the second at once; before and
// after, a signal does what it does in other commands. A signal that is ignored (nohup) stays so.
class StopSignals {
 public:
  StopSignals() {
    struct sigaction action {};
    action.sa_handler = stop_after_step;
    action.sa_flags = SA_RESTART;
    for (size_t i = 0; i < 2; ++i) {
      sigaction(kSignals[i], nullptr, &before_[i]);
      if (before_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
    }
  }
  ~StopSignals() {
    for (size_t i = 0; i < 2; ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  static constexpr int kSignals[2] = {SIGINT, SIGTERM};
  struct sigaction before_[2];
};

// 8.5M, 671.0B
std::string in_words(int64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.1f}B", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.1f}M", value / 1e6);
  return fmt::format("{:.1f}K", value / 1e3);
}

void initialise(Model& model, const RunConfig& run, RunLog& log) {
  model.initialise(run.train.seed);
  if (run.model_init.empty()) return;
  require_folder(run.model_init, "model.init");
  const std::filesystem::path path = run.model_init;
  const auto warn = [&](const std::string& text) { log.warn("warning: " + text); };
  bool is_touched = false;  // by a checkpoint that was passed by
  use_first_valid(path, agreed_steps(model.mesh(), [&] { return weight_steps(path); }), warn,
                  [&](const std::filesystem::path& folder, bool is_checkpoint) {
                    on_all_ranks(model.mesh(), [&] {
                      if (is_checkpoint) require_manifest(folder);
                      for (const std::string& change : require_init_model(folder, run))
                        warn("the run's model is not that of model.init: " + change);
                    });
                    if (std::exchange(is_touched, true)) model.initialise(run.train.seed);
                    const std::vector<int64_t> missing = model.load(folder, run.mtp.init_missing);
                    log.say(fmt::format(
                        "weights from {}, fresh optimizer{}", folder.string(),
                        missing.empty() ? "" : fmt::format(", {} MTP modules initialised", missing.size())));
                  });
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Seconds that calls took since they were last asked for.
class Stopwatch {
 public:
  template <class Call>
  void run(Call call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  double take() { return std::exchange(seconds_, 0); }

 private:
  double seconds_ = 0;
};

// SIGINT or SIGTERM if any rank got one: all stop after the same step. 0: none.
int agreed_signal(const Mesh& mesh) {
  const std::vector<int64_t> got =
      mesh.sum(std::vector<int64_t>{g_signal == SIGINT ? 1 : 0, g_signal == SIGTERM ? 1 : 0}, "signals");
  return got[0] > 0 ? SIGINT : got[1] > 0 ? SIGTERM : 0;
}

int train(const RunConfig& run, const Mesh& mesh) {
  Loader loader(run, mesh);
  std::optional<Loader> valid;
  if (!run.data.valid.empty()) valid.emplace(run, mesh, /*valid=*/true);
  Model model(run.model, mesh, ExecOptions::from(run));
  RunLog log(mesh.rank() == 0);
  if (const std::string unnamed = unnamed_tokenizer(run.data); !unnamed.empty())
    log.warn("warning: " + unnamed);
  Optimizer optimizer(model, run.optim);
  const std::filesystem::path out = run.train.out;
  std::optional<RunFolder> folder;  // rank 0's
  std::optional<Resumed> resumed;
  on_rank_zero(mesh, [&] {
    RunFolder::require_usable(run);
    // Locked before it is looked at: the run before may be saving still.
    if (!run.checkpoint.resume.empty()) folder.emplace(run);
  });
  if (!run.checkpoint.resume.empty()) {
    resumed = resume(model, optimizer, run, [&](const std::string& line) { log.warn("warning: " + line); });
  }
  if (!resumed) initialise(model, run, log);
  Trainer trainer(run, model, optimizer, loader);
  if (resumed)
    for (const std::string& line : trainer.resume(resumed->train)) log.warn("warning: data.train: " + line);
  std::optional<LineFile> metrics_file;  // rank 0's
  on_rank_zero(mesh, [&] {
    if (!folder) folder.emplace(run);
    const int64_t unreadable = folder->begin(run, trainer.state().step, trainer.done());
    log.open(out / "log.txt");
    if (unreadable > 0)
      log.warn(fmt::format("warning: {}: {} lines could not be read and are dropped",
                           (out / "metrics.jsonl").string(), unreadable));
    metrics_file.emplace(out / "metrics.jsonl");
  });
  auto write_metrics = [&](const std::string& line) {
    if (metrics_file) metrics_file->append(line + "\n");
  };

  log.say(fmt::format("{} parameters, {} sequences of {} a step, {}, run folder {}",
                      in_words(num_params(run.model, true)), run.train.global_batch, run.data.seq_len,
                      run.train.dtype, out.string()));
  if (const MeshLayout& layout = mesh.layout(); layout.world() > 1)
    log.say(fmt::format("{} ranks: replicate {}, shard {}, ep {}", layout.world(), layout.replicate,
                        layout.shard, layout.ep));
  if (resumed)
    log.say(fmt::format("resumed from {}, {} tokens seen", resumed->folder.string(), resumed->train.tokens));
  std::error_code error;
  const bool from_here = resumed && std::filesystem::equivalent(
                                        resumed->folder, checkpoint_path(out, resumed->train.step), error);
  Saver saver(model, optimizer, run, from_here ? resumed->train.step : 0, resumed ? resumed->tokenizer : "");
  auto tell = [&](const std::string& text) {
    for (const std::string& line : lines_of(text))
      line.starts_with("warning: ") ? log.warn(line) : log.say(line);
  };
  // A checkpoint that is written in the background may have filled the disk: it will fail and give the room
  // back, so lines may wait until then. They are there, on the disk itself, before the next one begins: it
  // stands for the steps up to its own.
  auto settle = [&] {
    if (saver.under_way()) return;
    if (metrics_file) metrics_file->settle();
    log.settle();
  };
  auto save = [&] {
    tell(saver.poll(/*wait=*/true));
    on_rank_zero(mesh, [&] {
      settle();
      metrics_file->sync();
    });
    tell(saver.begin(trainer.state()));
  };
  auto evaluate_now = [&] {
    const EvalResult result = evaluate(model, *valid, run.train.micro_batch, run.eval.batches);
    write_metrics(json_line(result, trainer.state().step, trainer.state().tokens));
    log.say(fmt::format("{:>11} held-out loss {:.4f} over {} tokens", trainer.state().step, result.loss,
                        result.targets));
  };
  // Rank 0 looks, so that all do the same.
  const int64_t exported = mesh.rank() == 0 && std::filesystem::exists(out / "hf" / "config.json") ? 1 : 0;
  if (trainer.done() && mesh.sum(std::span<const int64_t>(&exported, 1), "export")[0] > 0) {
    log.say("nothing is left to do");
    return 0;
  }
  std::optional<StopSignals> signals(std::in_place);
  double spent = 0;
  int signal = 0;
  const int64_t first = trainer.state().step;
  Stopwatch saving;
  while (!trainer.done() && signal == 0) {
    StepMetrics metrics = trainer.step();
    metrics.save_s = saving.take();
    spent += metrics.step_s;
    const int64_t total = trainer.total_steps();
    const double a_step = spent / static_cast<double>(metrics.step - first);
    const double left = total > 0 ? a_step * static_cast<double>(total - metrics.step) : -1;
    if (metrics.step % run.metrics.every == 0) {
      if ((metrics.step / run.metrics.every - 1) % 20 == 0) log.say(step_header());
      log.say(step_line(metrics, total, left));
    }
    write_metrics(json_line(metrics));
    if (run.metrics.load_every > 0 && metrics.step % run.metrics.load_every == 0)
      write_metrics(json_line(metrics.load, metrics.step));
    trainer.check_progress();
    if (valid && run.eval.every > 0 && metrics.step % run.eval.every == 0 && !trainer.done()) evaluate_now();
    saving.run([&] {
      tell(saver.poll());
      if (run.checkpoint.every > 0 && metrics.step % run.checkpoint.every == 0) save();
    });
    settle();
    signal = agreed_signal(mesh);
  }
  if (!trainer.done() || run.checkpoint.every > 0) {
    save();
    tell(saver.poll(/*wait=*/true));
  }
  signals.reset();
  if (!trainer.done()) {
    if (saver.last_step() != trainer.state().step)
      throw RunError(out.string(),
                     fmt::format("stopped after step {}, which could not be saved", trainer.state().step));
    log.warn(fmt::format("stopped after step {}; go on with --checkpoint.resume=auto", trainer.state().step));
    return static_cast<int>(ExitCode::stopped);
  }
  if (valid) evaluate_now();
  if (!model.is_finite())
    throw RunError(
        out.string(),
        fmt::format("weights are not finite after step {}: hf/ is not written", trainer.state().step),
        "lower optim.lr and go on from a checkpoint before it");
  model.save_hf(out / "hf", run.data.tokenizer);
  log.say(fmt::format("weights in {}", (out / "hf").string()));
  settle();
  return 0;
}

}  // namespace

int train_command(std::vector<std::string> args) {
  CLI::App app("Trains a model.", "dsv3 train");
  app.footer(std::string(kNprocHelp) +
             "\n  --section.key=value  any key of the run file; dsv3 config --help lists them");
  std::string file;
  app.add_option("RUN.toml", file, "the run file")->required();
  std::vector<std::string> flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  const RunConfig run = RunConfig::load(file, flags);
  run.check_paths();
  const Mesh mesh = Mesh::create(run.parallel, ExecOptions::from(run).device);
  set_determinism(run.train.deterministic);
  return reported([&] { return train(run, mesh); });
}

}  // namespace dsv3
