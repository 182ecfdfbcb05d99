#include "dsv3/convert/verify_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/convert/manifest.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

// Fits the second-level cache, so that the hash reads what was just copied there.
constexpr uint64_t kPiece = 256 << 10;

struct ListedFile {
  std::string name;
  const FileHashes* hashes;
  uint64_t first_block;  // of all files, one after the other
};

// The blocks of all files, taken by threads one after the other.
class Check {
 public:
  Check(const fs::path& folder, const Manifest& manifest, const CheckProgress& progress)
      : folder_(folder), progress_(progress) {
    for (const auto& [name, hashes] : manifest.files) {
      total_ += hashes.size;
      if (auto trouble = trouble_with(name, hashes)) {
        damaged_.push_back(*std::move(trouble));
        done_ += hashes.size;
        continue;
      }
      files_.push_back({name, &hashes, blocks_});
      blocks_ += hashes.blocks.size();
    }
  }

  FolderCheck run(int threads) {
    report(0);
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back([this] { work(); });
    work();
    others.clear();  // joins
    if (error_) std::rethrow_exception(error_);
    return {total_, merged(), {}};
  }

 private:
  std::optional<Damage> trouble_with(const std::string& name, const FileHashes& hashes) const {
    std::error_code error;
    if (fs::symlink_status(folder_ / name, error).type() == fs::file_type::not_found)
      return Damage{name, 0, hashes.size, "is missing"};
    try {
      const InputFile file(folder_ / name);
      if (file.size() != hashes.size)
        return Damage{name, 0, hashes.size,
                      fmt::format("has {} bytes, expected {}", file.size(), hashes.size)};
    } catch (const Error& wrong) {
      return Damage{name, 0, hashes.size, wrong.what(), wrong.code()};
    }
    return std::nullopt;
  }

  void work() {
    try {
      std::vector<std::byte> piece(kPiece);
      std::optional<InputFile> file;
      const ListedFile* opened = nullptr;
      for (uint64_t next; (next = next_++) < blocks_ && !stop_;) {
        const ListedFile& listed =
            *std::prev(std::ranges::upper_bound(files_, next, {}, &ListedFile::first_block));
        const uint64_t block = next - listed.first_block, begin = block * kManifestBlock;
        const uint64_t end = std::min(begin + kManifestBlock, listed.hashes->size);
        Damage damage{listed.name, begin, end, ""};
        try {
          if (opened != &listed) file.emplace(folder_ / listed.name), opened = &listed;
          if (hash(*file, begin, end, piece) != listed.hashes->blocks[block]) damage.what = "differs";
        } catch (const Error& wrong) {  // it shrank, it disappeared, EIO
          opened = nullptr;
          damage.what = wrong.what(), damage.code = wrong.code();
        }
        if (!damage.what.empty()) add(std::move(damage));
        report(end - begin);
      }
    } catch (...) {  // out of progress_
      const std::lock_guard lock(mutex_);
      if (!stop_.exchange(true)) error_ = std::current_exception();
    }
  }

  static Hash128 hash(const InputFile& file, uint64_t begin, uint64_t end, std::span<std::byte> piece) {
    Hasher hasher;
    for (uint64_t at = begin; at < end; at += piece.size()) {
      const auto part = piece.first(std::min<uint64_t>(piece.size(), end - at));
      file.read(part, at);
      hasher.update(part);
    }
    return hasher.digest();
  }

  void add(Damage damage) {
    const std::lock_guard lock(mutex_);
    damaged_.push_back(std::move(damage));
  }
  void report(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

  std::vector<Damage> merged() {
    std::ranges::sort(damaged_, {},
                      [](const Damage& d) { return std::pair(std::string_view(d.file), d.begin); });
    std::vector<Damage> ranges;
    for (Damage& damage : damaged_) {
      const bool joins = !ranges.empty() && ranges.back().file == damage.file &&
                         ranges.back().end == damage.begin && ranges.back().what == damage.what;
      if (joins) {
        ranges.back().end = damage.end;
      } else {
        ranges.push_back(std::move(damage));
      }
    }
    return ranges;
  }

  const fs::path& folder_;
  const CheckProgress& progress_;
  std::vector<ListedFile> files_;  // without those that are missing or of another size
  uint64_t blocks_ = 0, total_ = 0;
  std::atomic<uint64_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;  // of what follows, and of calls of progress_
  uint64_t done_ = 0;
  std::vector<Damage> damaged_;
  std::exception_ptr error_;
};

std::vector<std::string> find_unlisted(const fs::path& folder, const Manifest& manifest) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name != kManifestName && !manifest.files.contains(name)) names.push_back(std::move(name));
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace

FolderCheck verify_folder(const fs::path& folder, const CheckProgress& progress, int threads) {
  require_exists(folder);
  if (!fs::is_directory(folder)) throw UsageError(printable(folder.string(), 400), "is no folder");
  const auto manifest = Manifest::read(folder);
  if (!manifest) {
    throw InputError((folder / kManifestName).string(), "", "no such file",
                     "without it nothing can be checked");
  }
  FolderCheck check = Check(folder, *manifest, progress).run(threads);
  check.unlisted = find_unlisted(folder, *manifest);
  return check;
}

}  // namespace dsv3
