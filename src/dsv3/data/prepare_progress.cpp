#include "dsv3/data/prepare_progress.h"

#include <optional>
#include <span>
#include <system_error>
#include <type_traits>
#include <utility>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/hash.h"

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

bool present(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

std::optional<uint64_t> size_of(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  const uint64_t size = fs::file_size(path, error);
  return error ? std::nullopt : std::optional(size);
}

std::optional<PrepareProgress> read_progress(const fs::path& path, const std::string& identity) {
  if (size_of(path) != sizeof(Stored)) return std::nullopt;
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

PrepareFolder::PrepareFolder(const fs::path& prefix, std::vector<fs::path> outputs,
                             const std::string& identity)
    : path_(folder_of(prefix)),
      outputs_(std::move(outputs)),
      all_files_(all_files(prefix)),
      progress_path_(path_ / "progress"),
      identity_(identity),
      lock_(make_folder(path_) / "lock", FileLock::When::now) {
  if (!lock_.held()) {
    throw UsageError("--out", "another process is writing " + printable(prefix.string(), 400),
                     "wait for it, or give another prefix");
  }
  if (!present(progress_path_)) return;
  const std::optional<PrepareProgress> found = read_progress(progress_path_, identity_);
  if (!found || !is_there(*found)) {
    discard();
    return;
  }
  found_ = *found;
  start_ = Start::resumed;
}

PrepareFolder::~PrepareFolder() {
  if (lock_.held() && !saved_ && start_ != Start::resumed) remove();
}

bool PrepareFolder::is_there(const PrepareProgress& progress) const {
  for (size_t part = 0; part < outputs_.size(); ++part) {
    const IndexedSizes& sizes = progress.parts[part].files;
    if (sizes.documents == 0) continue;
    const std::pair<const char*, uint64_t> files[] = {
        {".bin", sizes.bin_bytes}, {".idx", progress.whole ? sizes.whole_idx_bytes() : sizes.idx_bytes()}};
    for (const auto& [ending, bytes] : files) {
      const fs::path unfinished = path_ / (kParts[part] + std::string(ending));
      // A file that is not there any more has its own name already.
      const bool named = progress.whole && !present(unfinished);
      const auto size = size_of(named ? fs::path(outputs_[part].string() + ending) : unfinished);
      if (!size || *size < bytes || (progress.whole && *size > bytes)) return false;
    }
  }
  return true;
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

void PrepareFolder::publish() {
  for (size_t part = 0; part < outputs_.size(); ++part) {
    const std::string from = files(static_cast<TextJob::Part>(part)), to = outputs_[part];
    // Away before the data changes: no .json is better than one of other data, and no .idx than one of
    // another .bin. What has a new one is not touched.
    bool removed = false;
    for (const char* ending : {".json", ".idx"}) {
      std::error_code error;
      if (present(from + ending)) removed |= fs::remove(to + ending, error);
      if (error) throw RunError(printable(to + ending, 400), "cannot be replaced: " + error.message());
    }
    if (removed) fsync_directory(outputs_[part].parent_path());
    for (const char* ending : {".bin", ".idx", ".json"})
      if (present(from + ending)) rename_synced(from + ending, to + ending);
  }
  remove();
}

void PrepareFolder::remove() {
  // By name: what somebody else put there stays, and the folder with it.
  std::error_code ignored;
  for (const fs::path& file : all_files_) fs::remove(file, ignored);
  fs::remove(path_, ignored);
  saved_ = false;
}

}  // namespace dsv3
