#include "dsv3/cli/engine/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

// But for the lock, which a run that failed at its start leaves.
bool holds_nothing(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename() != ".lock") return false;
  return true;
}

// Drops the lines behind `step`, and a line that was cut off.
void keep_metrics_until(const fs::path& path, int64_t step) {
  std::error_code error;
  if (!fs::exists(path, error)) return;
  std::ifstream file(path);
  AtomicFile kept(path);
  for (std::string line; std::getline(file, line) && !file.eof();) {
    const Json json = parse_json(line, path.string());
    if (!json.is_object()) throw InputError(path.string(), "", "a line is no object: " + printable(line));
    if (json.value("step", step + 1) <= step) kept.write(line + "\n");
  }
  kept.commit();
}

}  // namespace

RunFolder::RunFolder(const RunConfig& run) {
  const fs::path out = run.train.out;
  const std::string name = printable(out.string(), 400);
  std::error_code error;
  if (run.checkpoint.resume.empty() && !holds_nothing(out))
    throw UsageError("train.out", name + ": is not empty",
                     "name another folder, remove it, or go on with checkpoint.resume = \"auto\"");
  if (fs::exists(out, error) && !fs::is_directory(out, error))
    throw UsageError("train.out", name + ": is no folder", "name another");
  fs::create_directories(out, error);
  if (error) throw RunError(name, "cannot be created: " + error.message());
  const std::string lock = (out / ".lock").string();
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) throw RunError(printable(lock), std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const bool taken = errno == EWOULDBLOCK;
    ::close(lock_);
    if (taken) throw UsageError("train.out", name + ": another run is at work in it", "name another folder");
    throw RunError(printable(lock), std::strerror(errno));
  }
}

void RunFolder::begin(const RunConfig& run, int64_t step, bool done) const {
  const fs::path out = run.train.out;
  remove_unfinished(out);
  set_aside_after(out, step);
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    const bool half_written = name.starts_with("hf.tmp-") || name.starts_with("run.toml.tmp-") ||
                              name.starts_with("metrics.jsonl.tmp-");
    if (half_written || (name == "hf" && !done)) leftovers.push_back(entry.path());
  }
  std::error_code ignored;
  for (const fs::path& path : leftovers) fs::remove_all(path, ignored);
  write_atomically(out / "run.toml", run.to_toml());
  keep_metrics_until(out / "metrics.jsonl", step);
}

RunFolder::~RunFolder() { ::close(lock_); }

}  // namespace dsv3
