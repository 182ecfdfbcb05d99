#include "dsv3/convert/partial_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/file_lock.h"
#include "dsv3/base/hash.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxRecord = 1ull << 30;
constexpr const char *kLock = "lock", *kClaims = "claims";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

int open_lock(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) throw RunError(printable(path.string()), std::strerror(errno));
  return fd;
}

[[noreturn]] void fail(const fs::path& path, const char* what, const std::error_code& error) {
  throw RunError(printable(path.string(), 400), std::string(what) + ": " + error.message());
}

void remove_all_but(const std::vector<std::string>& kept, const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> others;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (std::ranges::find(kept, it->path().filename().string()) == kept.end()) others.push_back(it->path());
  }
  if (error) fail(folder, "cannot be read", error);
  for (const fs::path& path : others) {
    fs::remove_all(path, error);
    if (error) fail(path, "cannot be removed", error);
  }
}

// "out/" names the folder "out".
fs::path without_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

std::string conversion_text(const std::string& identity) {
  return to_hex(hash_bytes(std::as_bytes(std::span(identity.data(), identity.size())))) + "\n";
}

}  // namespace

bool is_result_of(const fs::path& target, const std::string& identity) {
  const fs::path path = without_slash(target) / kConversionName;
  const std::string expected = conversion_text(identity);
  std::error_code error;
  return fs::is_regular_file(path, error) && fs::file_size(path, error) == expected.size() &&
         read_text(path, expected.size()) == expected;
}

void require_new(const fs::path& target) {
  const fs::path path = without_slash(target);
  if (is_there(path)) throw UsageError(printable(path.string(), 400), "exists already", "name a new folder");
}

void require_new_and_tidy(const fs::path& target) {
  const std::string path = without_slash(target).string();
  std::error_code ignored;
  if (is_there(path) && !is_there(path + ".partial")) fs::remove_all(path + ".partial.work", ignored);
  require_new(path);
}

PartialFolder::PartialFolder(const fs::path& target, const std::string& identity)
    : target_(without_slash(target)),
      path_(target_.string() + ".partial"),
      work_(target_.string() + ".partial.work"),
      identity_(identity) {
  require_new_and_tidy(target_);
  create_folders(work_);
  const FileLock lock(work_ / kLock, FileLock::When::wait);
  require_new_and_tidy(target_);  // finished by another process since
  if (!is_there(path_)) {
    // Records of files that are not there any more. In this order, so that a process that dies here leaves
    // none of them beside a new folder.
    remove_all_but({kLock, kClaims}, work_);
    create_folders(path_);
  }
  if (!is_there(work_ / "identity")) {
    write_atomically(work_ / "identity", identity);
  } else if (read_text(work_ / "identity", kMaxRecord) != identity) {
    throw UsageError(printable(path_.string(), 400), "is left from another conversion",
                     "remove it, or name another folder");
  }
  claims_ = open_lock(work_ / kClaims);
}

PartialFolder::~PartialFolder() {
  if (claims_ >= 0) ::close(claims_);
}

void PartialFolder::claim(int64_t number) const {
  struct flock byte {};
  byte.l_type = F_WRLCK;
  byte.l_whence = SEEK_SET;
  byte.l_start = number;
  byte.l_len = 1;
  if (::fcntl(claims_, F_OFD_SETLK, &byte) == 0) return;
  if (errno == EAGAIN || errno == EACCES)
    throw UsageError(printable(target_.string(), 400), "another process is writing it",
                     "wait for it; several may share the work as --part 1/2, --part 2/2");
  throw RunError(printable((work_ / kClaims).string()), std::strerror(errno));
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
  const FileLock lock(work_ / kLock, FileLock::When::wait);
  if (is_there(target_) || !all_there()) return is_there(target_);
  DcpPart whole;
  for (const std::string& file : files) {
    const fs::path path = record_path(file);
    whole.add(DcpPart::parse(read_text(path, kMaxRecord), path.string()));
  }
  // What is none of the result: temporary files of processes that died.
  remove_all_but(files, path_);
  write_atomically(path_ / kConversionName, conversion_text(identity_));
  finish(std::move(whole));
  fsync_directory(path_);
  rename_synced(path_, target_);
  std::error_code ignored;
  fs::remove_all(work_, ignored);
  return true;
}

}  // namespace dsv3
