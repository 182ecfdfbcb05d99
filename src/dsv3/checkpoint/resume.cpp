#include "dsv3/checkpoint/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "dsv3/base/error.h"
#include "dsv3/checkpoint/contents.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/run_folder.h"
#include "dsv3/parallel/fill.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

void fill(const DcpFolder& folder, const SavedRange& range) {
  const StoredTensor* stored = folder.find(range.key);
  if (stored == nullptr && range.key.starts_with("optim.state."))
    throw UsageError(
        "optim.freeze",
        "does not freeze what was frozen when " + folder.file() + " was saved: it holds no " + range.key,
        "set it as it was, or take the weights alone by model.init");
  if (stored == nullptr) throw InputError(folder.file(), range.key, "is missing");
  if (stored->shape != range.shape)
    throw InputError(folder.file(), range.key,
                     fmt::format("has shape [{}], expected [{}]", fmt::join(stored->shape, ", "),
                                 fmt::join(range.shape, ", ")));
  fill_pieces(range.values, [&](int64_t begin, auto out) { folder.read(*stored, range.begin + begin, out); });
}

// What the ranks' ranges leave: keys of no parameter, and the files beside the tensors.
void check_the_rest(const DcpFolder& folder, const ParamTable& table) {
  std::set<std::string> used;
  for (const ParamSpec& spec : table.params)
    for (const char* moment : {"", ".exp_avg", ".exp_avg_sq"})
      used.insert(*moment ? "optim.state." + spec.name + moment : spec.name);
  std::vector<std::byte> bytes;
  for (const auto& [key, stored] : folder.tensors()) {
    if (used.contains(key)) continue;
    const auto size = dtype_size(stored.dtype);
    constexpr int64_t kPiece = 1 << 20;
    for (int64_t begin = 0; begin < stored.numel(); begin += kPiece) {
      bytes.resize(static_cast<size_t>(std::min(kPiece, stored.numel() - begin) * size));
      folder.read_bytes(stored, begin, bytes);
    }
  }
  folder.check_objects_and_files();
}

Resumed resume_from(Model& model, Optimizer& optimizer, const RunConfig& run, const fs::path& folder,
                    const std::function<void(const std::string&)>& warn) {
  const SavedState state = load_checkpoint(model, optimizer, folder);
  on_all_ranks(model.mesh(), [&] { require_same_tokenizer(state.tokenizer, run.data, folder.string()); });
  for (const std::string& change : changed_keys(state.run, run))
    warn("the run goes on otherwise than it was saved: " + change);
  return {folder, state.train, state.tokenizer};
}

}  // namespace

std::vector<int64_t> agreed_steps(const Mesh& mesh, const std::function<std::vector<int64_t>()>& list) {
  std::vector<int64_t> steps;
  on_rank_zero(mesh, [&] { steps = list(); });
  const int64_t count = static_cast<int64_t>(steps.size());
  steps.resize(static_cast<size_t>(mesh.sum(std::span<const int64_t>(&count, 1), "checkpoints")[0]), 0);
  return mesh.sum(steps, "checkpoints");
}

SavedState load_checkpoint(Model& model, Optimizer& optimizer, const fs::path& path) {
  at::NoGradGuard no_grad;
  model.mesh().phase("load");
  SavedState state;
  on_all_ranks(model.mesh(), [&] {
    const DcpFolder folder(path);
    const auto text = folder.object(kStateKey);
    if (!text || !text->is(PickleKind::text))
      throw InputError(folder.file(), kStateKey, "is missing: weights without a training state",
                       "take them by model.init");
    state = SavedState::parse(text->text(), folder.file());
    require_same_model(state.model, model.config(), path.string());
    const std::vector<SavedRange> ranges = saved_ranges(model, optimizer, /*all=*/true);
    for (const SavedRange& range : ranges) fill(folder, range);
    if (model.mesh().rank() == 0) check_the_rest(folder, model.table());
  });
  optimizer.set_updates(state.updates);
  return state;
}

std::optional<Resumed> resume(Model& model, Optimizer& optimizer, const RunConfig& run,
                              const std::function<void(const std::string&)>& warn) {
  const bool is_auto = run.checkpoint.resume == "auto";
  const fs::path from = is_auto ? run.train.out : run.checkpoint.resume;
  if (!is_auto && is_dcp_folder(from)) {
    if (!has_manifest(from))
      warn(fmt::format("{} has no manifest.json: its bytes are unverified", from.string()));
    return resume_from(model, optimizer, run, from, warn);
  }
  const std::vector<int64_t> steps = agreed_steps(model.mesh(), [&] { return list_checkpoints(from); });
  std::vector<fs::path> folders;
  for (const int64_t step : steps) folders.push_back(checkpoint_path(from, step));
  for (const fs::path& folder : folders) {
    try {
      on_rank_zero(model.mesh(), [&] { require_manifest(folder); });
      return resume_from(model, optimizer, run, folder, warn);
    } catch (const Error& error) {
      // Whatever else fails, memory or descriptors or a permission, says nothing about the checkpoint.
      if (error.code() != ExitCode::content) throw;
      warn(fmt::format("checkpoint {} is not valid and is passed by: {}", folder.filename().string(),
                       error.what()));
    }
  }
  if (folders.empty() && is_auto) return std::nullopt;
  throw InputError(
      (from / "checkpoints").string(), "",
      folders.empty() ? "holds no checkpoint" : "none of its checkpoints is valid",
      "name a run's folder or a step-N of one by checkpoint.resume, or begin anew in another train.out");
}

}  // namespace dsv3
