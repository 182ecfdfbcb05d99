#include "dsv3/convert/partial_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxRecord = 1ull << 30;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

// One process at a time while it lives.
class Lock {
 public:
  explicit Lock(const fs::path& path) : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (fd_ < 0) throw RunError(printable(path.string()), std::strerror(errno));
    while (::flock(fd_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      const std::string why = std::strerror(errno);
      ::close(fd_);
      throw RunError(printable(path.string()), why);
    }
  }
  ~Lock() { ::close(fd_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;
};

}  // namespace

PartialFolder::PartialFolder(const fs::path& target, const std::string& identity) {
  target_ = target.lexically_normal();
  if (!target_.has_filename()) target_ = target_.parent_path();  // "out/" names the folder "out"
  if (is_there(target_))
    throw UsageError(printable(target_.string(), 400), "exists already", "name a new folder");
  path_ = target_.string() + ".partial";
  work_ = target_.string() + ".partial.work";
  std::error_code error;
  if (!is_there(path_)) fs::remove_all(work_, error);  // of a conversion whose result got its name
  fs::create_directories(work_, error);
  if (!error) fs::create_directories(path_, error);
  if (error) throw RunError(printable(path_.string(), 400), "cannot be created: " + error.message());
  const Lock lock(work_ / "lock");
  if (!is_there(work_ / "identity")) {
    write_atomically(work_ / "identity", identity);
  } else if (read_text(work_ / "identity", kMaxRecord) != identity) {
    throw UsageError(printable(path_.string(), 400), "is left from another conversion",
                     "remove it, or name another folder");
  }
}

fs::path PartialFolder::record_path(const std::string& file) const { return work_ / file; }

bool PartialFolder::has(const std::string& file) const {
  return is_there(path_ / file) && is_there(record_path(file));
}

void PartialFolder::record(const std::string& file, const DcpPart& part) const {
  write_atomically(record_path(file), part.text());
}

bool PartialFolder::complete(const std::vector<std::string>& files,
                             const std::function<void(DcpPart&&)>& finish) const {
  const auto all_there = [&] {
    return std::ranges::all_of(files, [&](const std::string& file) { return has(file); });
  };
  if (is_there(target_) || !all_there()) return is_there(target_);
  const Lock lock(work_ / "lock");
  if (is_there(target_) || !all_there()) return is_there(target_);
  DcpPart whole;
  for (const std::string& file : files) {
    const fs::path path = record_path(file);
    whole.add(DcpPart::parse(read_text(path, kMaxRecord), path.string()));
  }
  // What is none of the result: temporary files of processes that died.
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (std::ranges::find(files, name) == files.end()) others.push_back(entry.path());
  }
  for (const fs::path& path : others) fs::remove_all(path);
  finish(std::move(whole));
  fsync_directory(path_);
  std::error_code error;
  fs::rename(path_, target_, error);
  if (error) throw RunError(printable(target_.string(), 400), "rename: " + error.message());
  fsync_directory(target_.parent_path());
  fs::remove_all(work_, error);
  return true;
}

}  // namespace dsv3
