#include "dsv3/data/prepare_progress.h"

#include <optional>
#include <span>
#include <system_error>
#include <type_traits>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/hash.h"
#include "dsv3/data/indexed_format.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

constexpr const char* kParts[] = {"train", "valid"};  // by TextJob::Part

// The file `progress`: the record and, against damage and other identities, a hash of both.
struct Stored {
  PrepareProgress progress;
  Hash128 hash;
};
static_assert(std::has_unique_object_representations_v<Stored>, "no padding, whose bytes would be anything");

Hash128 hash_of(const std::string& identity, const PrepareProgress& progress) {
  Hasher hasher;
  hasher.update(identity);
  hasher.update(std::as_bytes(std::span(&progress, 1)));
  return hasher.digest();
}

fs::path folder_of(const fs::path& prefix) { return prefix.string() + ".partial"; }

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

bool has_bytes(const fs::path& path, uint64_t bytes) {
  std::error_code error;
  return fs::is_regular_file(path, error) && fs::file_size(path, error) >= bytes && !error;
}

std::optional<PrepareProgress> read_progress(const fs::path& path, const std::string& identity) {
  if (!has_bytes(path, sizeof(Stored))) return std::nullopt;
  const InputFile file(path);
  Stored stored;
  file.read(std::as_writable_bytes(std::span(&stored, 1)), 0);
  if (file.size() != sizeof(Stored) || stored.hash != hash_of(identity, stored.progress)) return std::nullopt;
  return stored.progress;
}

const fs::path& make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (error) throw RunError(printable(path.string(), 400), "cannot be created: " + error.message());
  return path;
}

}  // namespace

std::vector<fs::path> PrepareFolder::all_files(const fs::path& prefix) {
  std::vector<fs::path> files;
  for (const char* name : {"progress", "progress.new", "train.bin", "train.idx", "train.json", "valid.bin",
                           "valid.idx", "valid.json", "lock"})
    files.push_back(folder_of(prefix) / name);
  return files;
}

PrepareFolder::PrepareFolder(const fs::path& prefix, const std::string& identity)
    : path_(folder_of(prefix)),
      all_files_(all_files(prefix)),
      progress_path_(path_ / "progress"),
      identity_(identity),
      lock_(make_folder(path_) / "lock", FileLock::When::now) {
  if (!lock_.held()) {
    throw UsageError("--out", "another process is writing " + printable(prefix.string(), 400),
                     "wait for it, or give another prefix");
  }
  if (!is_there(progress_path_)) return;
  const std::optional<PrepareProgress> found = read_progress(progress_path_, identity_);
  bool whole = found.has_value();
  for (const TextJob::Part part : {TextJob::kTrain, TextJob::kValid}) {
    if (!whole || found->parts[part].files.documents == 0) continue;
    whole = has_bytes(indexed_format::bin_path(files(part)), found->parts[part].files.bin_bytes) &&
            has_bytes(indexed_format::idx_path(files(part)), found->parts[part].files.idx_bytes());
  }
  if (!whole) {
    discard();
    return;
  }
  found_ = *found;
  start_ = Start::resumed;
}

PrepareFolder::~PrepareFolder() {
  if (lock_.held() && !saved_ && start_ != Start::resumed) finish();
}

void PrepareFolder::discard() {
  found_ = {};
  start_ = Start::discarded;
  // Surely away before the files that it tells of become those of another command.
  std::error_code error;
  fs::remove_all(progress_path_, error);
  if (error) throw RunError(printable(progress_path_.string(), 400), "cannot be removed: " + error.message());
  fsync_directory(path_);
}

fs::path PrepareFolder::files(TextJob::Part part) const { return path_ / kParts[part]; }

void PrepareFolder::save(const PrepareProgress& progress) {
  const Stored stored{progress, hash_of(identity_, progress)};
  AtomicFile file(progress_path_, progress_path_.string() + ".new", 0);
  file.write(std::as_bytes(std::span(&stored, 1)));
  file.commit();
  saved_ = true;
}

void PrepareFolder::finish() {
  // By name: what somebody else put there stays, and the folder with it.
  std::error_code ignored;
  for (const fs::path& file : all_files_) fs::remove(file, ignored);
  fs::remove(path_, ignored);
  saved_ = false;
}

}  // namespace dsv3
