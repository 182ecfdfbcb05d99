#include "dsv3/cli/engine/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;

RunFolder::RunFolder(const RunConfig& run) {
  const fs::path out = run.train.out;
  const std::string name = printable(out.string(), 400);
  std::error_code error;
  if (run.checkpoint.resume.empty() && fs::exists(out, error) && !fs::is_empty(out, error))
    throw UsageError("train.out", name + ": is not empty",
                     "name another folder, remove it, or go on with checkpoint.resume = \"auto\"");
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
  remove_unfinished(out);
  write_atomically(out / "run.toml", run.to_toml());
}

RunFolder::~RunFolder() { ::close(lock_); }

void keep_metrics_until(const fs::path& path, int64_t step) {
  std::error_code error;
  if (!fs::exists(path, error)) return;
  std::ifstream file(path);
  AtomicFile kept(path);
  for (std::string line; std::getline(file, line) && !file.eof();) {
    const Json json = parse_json(line, path.string());
    if (json.value("step", step + 1) <= step) kept.write(line + "\n");
  }
  kept.commit();
}

}  // namespace dsv3
