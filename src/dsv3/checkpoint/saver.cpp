#include "dsv3/checkpoint/saver.h"

#include <fmt/format.h>

#include <chrono>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/checkpoint/contents.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/hf_plan.h"
#include "dsv3/convert/run_folder.h"
#include "dsv3/data/prefix_info.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/optim/schedule.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxPart = 1ull << 30;

// A rank's list of what it wrote, until rank 0 has joined them.
fs::path part_path(const fs::path& folder, int64_t rank) { return folder / fmt::format(".part-{}", rank); }

void create_new(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  create_folders(folder);
}

// Out of the way first, so that no half-removed folder has a checkpoint's name.
void remove_checkpoint(const fs::path& folder) {
  const fs::path aside = folder.string() + ".old.tmp";
  rename_synced(folder, aside);
  std::error_code error;
  fs::remove_all(aside, error);
  if (error) throw RunError(printable(aside.string(), 400), "cannot be removed: " + error.message());
}

// Keeps the newest ones up to `newest`, which was just written. What an earlier call could not remove is
// tried again.
void prune(const RunConfig& run, int64_t newest) {
  remove_unfinished(run.train.out);
  int64_t kept = 0;
  for (const int64_t step : list_checkpoints(run.train.out)) {
    if (step > newest) continue;
    const bool for_good = run.checkpoint.keep_every > 0 && step % run.checkpoint.keep_every == 0;
    if (kept < std::max<int64_t>(run.checkpoint.keep_last, 1)) {
      ++kept;
    } else if (!for_good) {
      remove_checkpoint(checkpoint_path(run.train.out, step));
    }
  }
}

std::string and_then(std::string said, const std::string& more) {
  return said.empty() || more.empty() ? said + more : said + "\n" + more;
}

}  // namespace

Saver::Saver(Model& model, Optimizer& optimizer, const RunConfig& run, int64_t last_step,
             const std::string& tokenizer)
    : model_(model),
      optimizer_(optimizer),
      run_(run),
      tokenizer_(hash_of_ids(run.data)),
      last_step_(last_step) {
  if (tokenizer_.empty()) tokenizer_ = tokenizer;
}

Saver::~Saver() {
  if (!writing_.valid()) return;
  writing_.wait();
  std::error_code ignored;
  if (model_.mesh().rank() == 0) fs::remove_all(unfinished(), ignored);
}

fs::path Saver::unfinished() const { return checkpoint_path(run_.train.out, step_).string() + ".tmp"; }

std::string Saver::begin(const TrainState& state) {
  at::NoGradGuard no_grad;
  const std::string said = poll(/*wait=*/true);
  if (state.step == last_step_) return said;
  step_ = state.step;
  const Mesh& mesh = model_.mesh();
  mesh.phase("save");
  std::vector<SavedRange> ranges;
  try {
    on_rank_zero(mesh, [&] { create_new(unfinished()); });
    on_all_ranks(mesh, [&] {
      ranges = saved_ranges(model_, optimizer_, /*all=*/false);
      if (!run_.checkpoint.async) return;
      for (SavedRange& range : ranges)
        range.values = range.values.detach().to(at::kCPU, range.values.scalar_type(), false, /*copy=*/true);
    });
  } catch (const Error& error) {
    return and_then(said, failed(error.what()));
  }
  const SavedState saved{.train = state,
                         .updates = optimizer_.updates(),
                         .model = run_.model,
                         .run = run_.to_toml(),
                         .tokenizer = tokenizer_};
  std::packaged_task<void()> task([this, saved, ranges = std::move(ranges), folder = unfinished()] {
    const int64_t rank = model_.mesh().rank();
    DcpFileWriter writer(folder / fmt::format("__{}_0.distcp", rank));
    for (const SavedRange& range : ranges) write_range(writer, range);
    if (rank == 0) {
      const double lr = learning_rate(run_, saved.train.tokens, saved.train.step + 1);
      write_optimizer_facts(writer, model_, run_.optim, lr, saved.updates);
      writer.object(kStateKey, {kStateKey}, PickleValue::of_text(saved.text()));
    }
    write_atomically(part_path(folder, rank), writer.finish().text());
  });
  writing_ = task.get_future();
  if (run_.checkpoint.async) {
    thread_ = std::jthread(std::move(task));
    return said;
  }
  task();
  return and_then(said, complete());
}

std::string Saver::poll(bool wait) {
  if (!writing_.valid()) return "";
  if (wait) writing_.wait();
  const int64_t ready = writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready ? 1 : 0;
  const Mesh& mesh = model_.mesh();
  if (mesh.sum(std::span<const int64_t>(&ready, 1), "save")[0] < mesh.world_size()) return "";
  return complete();
}

std::string Saver::complete() {
  uint64_t bytes = 0;
  try {
    on_all_ranks(model_.mesh(), [&] { writing_.get(); });
    on_rank_zero(model_.mesh(), [&] { bytes = commit(); });
  } catch (const Error& error) {
    return failed(error.what());
  }
  last_step_ = step_;
  failures_ = 0;
  std::string said = fmt::format("{:>11} saved, {:.1f} MB", step_, static_cast<double>(bytes) / 1e6);
  try {
    on_rank_zero(model_.mesh(), [&] { prune(run_, step_); });
  } catch (const Error& error) {
    said += fmt::format("\nwarning: an older checkpoint could not be removed: {}", error.what());
  }
  return said;
}

uint64_t Saver::commit() {
  const fs::path folder = unfinished(), target = checkpoint_path(run_.train.out, step_);
  DcpPart whole;
  for (int64_t rank = 0; rank < model_.mesh().world_size(); ++rank) {
    const fs::path path = part_path(folder, rank);
    whole.add(DcpPart::parse(read_text(path, kMaxPart), path.string()));
    fs::remove(path);
  }
  uint64_t bytes = 0;
  for (const auto& [name, hashes] : whole.files) bytes += hashes.size;
  write_atomically(
      folder / "config.json",
      hf_config_json(run_.model, run_.train.dtype == "fp64" ? DType::f64 : DType::f32).dump(2) + "\n");
  write_atomically(folder / "run.toml", run_.to_toml());
  copy_tokenizer(run_.data.tokenizer, folder);
  finish_dcp_folder(folder, std::move(whole));
  fsync_directory(folder);
  // There is one if it got its name, and the sync of that failed: its step is saved once more at the run's
  // end.
  if (std::error_code ignored; fs::exists(target, ignored)) remove_checkpoint(target);
  rename_synced(folder, target);
  return bytes;
}

std::string Saver::failed(const std::string& why) {
  writing_ = {};
  if (model_.mesh().rank() == 0) {
    std::error_code ignored;
    fs::remove_all(unfinished(), ignored);
  }
  if (++failures_ >= run_.checkpoint.max_failures)
    throw RunError("checkpoint",
                   fmt::format("{} in a row could not be saved, the last because of: {}", failures_, why),
                   "make room, or raise checkpoint.max_failures");
  return fmt::format("warning: the checkpoint of step {} could not be saved: {}", step_, why);
}

}  // namespace dsv3
