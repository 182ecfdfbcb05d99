#include "dsv3/cli/engine/run_folder.h"

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

bool is_half_written(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with("run.toml.tmp-") || name.starts_with("metrics.jsonl.tmp-");
}

// But for what a run that failed or was killed at its start leaves.
bool holds_nothing(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename() != ".lock" && !is_half_written(it->path())) return false;
  return true;
}

// A run writes its run.toml before anything else.
bool holds_a_run(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "run.toml", error);
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path relative =
      fs::weakly_canonical(path, error).lexically_relative(fs::weakly_canonical(folder, error));
  return !relative.empty() && *relative.begin() != "..";
}

// The step of a line of metrics.jsonl, nothing when it cannot be read: a power failure leaves such lines.
std::optional<int64_t> step_of(const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  const auto found = json.is_object() ? json.find("step") : json.end();
  if (!json.is_object() || found == json.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

// Drops the lines behind `step`, one that was cut off, and those that cannot be read, which it counts.
int64_t keep_metrics_until(const fs::path& path, int64_t step) {
  std::error_code error;
  if (!fs::exists(path, error)) return 0;
  std::ifstream file(path);
  AtomicFile kept(path);
  int64_t unreadable = 0;
  for (std::string line; std::getline(file, line) && !file.eof();) {
    const std::optional<int64_t> its = step_of(line);
    if (!its) ++unreadable;
    if (its && *its <= step) kept.write(line + "\n");
  }
  kept.commit();
  return unreadable;
}

// In the folder, which is made.
fs::path lock_file(const RunConfig& run) {
  RunFolder::require_usable(run);
  create_folders(run.train.out);
  return fs::path(run.train.out) / ".lock";
}

}  // namespace

void RunFolder::require_usable(const RunConfig& run) {
  const fs::path out = run.train.out;
  const std::string name = printable(out.string(), 400);
  std::error_code error;
  const std::string& resume = run.checkpoint.resume;
  if (resume.empty() && !holds_nothing(out))
    throw UsageError("train.out", name + ": is not empty",
                     "name another folder, remove it, or go on with checkpoint.resume = \"auto\"");
  if (!holds_nothing(out) && !holds_a_run(out))
    throw UsageError("train.out", name + ": holds files and no run", "name another folder");
  if (!resume.empty() && resume != "auto" && !lies_in(resume, out) && !list_checkpoints(out).empty())
    throw UsageError(
        "checkpoint.resume",
        printable(resume, 400) + " is of another run, and " + name + " has checkpoints of its own",
        "name another train.out, or go on with checkpoint.resume = \"auto\"");
  if (fs::exists(out, error) && !fs::is_directory(out, error))
    throw UsageError("train.out", name + ": is no folder", "name another");
}

RunFolder::RunFolder(const RunConfig& run) : lock_(lock_file(run), FileLock::When::now) {
  if (!lock_.held())
    throw UsageError("train.out", printable(run.train.out, 400) + ": another run is at work in it",
                     "name another folder");
}

int64_t RunFolder::begin(const RunConfig& run, int64_t step, bool done) const {
  const fs::path out = run.train.out, hf = out / "hf", passed = out / "hf.passed";
  std::error_code ignored;
  const bool ended_before = fs::exists(hf, ignored);
  if (ended_before && step == 0)
    throw UsageError(
        "train.out",
        printable(out.string(), 400) + ": holds hf/ of a run that ended, and no checkpoint to go on from",
        "name another folder; model.init takes the weights of hf/");
  remove_unfinished(out);
  set_aside_after(out, step);
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(out))
    if (entry.path().filename().string().starts_with("hf.tmp-") || is_half_written(entry.path()))
      leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) fs::remove_all(path, ignored);
  if (ended_before && !done) {
    fs::remove_all(passed, ignored);
    rename_synced(hf, passed);
  }
  write_atomically(out / "run.toml", run.to_toml());
  return keep_metrics_until(out / "metrics.jsonl", step);
}

}  // namespace dsv3
