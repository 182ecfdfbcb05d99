#include "dsv3/base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/system_call.h"

namespace dsv3 {
namespace {

// [Note: write-behind] The disk begins with each stretch of a file beside what the writer does next, and not
// when commit() waits for it. What it has, but for the last of it, leaves the page cache: the next stretches
// go where it was, so that a file of any length takes this much of the machine's memory. Where a virtual
// machine gives what is free back to its host, new memory costs more than the copy into it: conversions went
// at half the rate (tools/bench_convert.py, docs/proof.md). The size of a call is the
// fastest of 64 KiB to 16 MiB there, each put in by hand.
constexpr uint64_t kStretch = 16u << 20;
constexpr uint64_t kInMemory = 128u << 20;
constexpr size_t kWriteCall = 1u << 20;

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter = 0;
  do {  // O_EXCL and a fresh name: never somebody else's file, nor a link that waits there
    temporary_ = path_;
    temporary_ += fmt::format(".tmp-{}-{}", ::getpid(), counter++);
    fd_ = retry([&] { return ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) throw RunError(printable(path_.string()), "cannot be written: " + errno_text());
}

AtomicFile::AtomicFile(std::filesystem::path path, std::filesystem::path temporary, uint64_t size)
    : path_(std::move(path)),
      temporary_(std::move(temporary)),
      stays_(true),
      size_(size),
      started_(size),
      dropped_(size) {
  const int create = size == 0 ? O_CREAT : 0;
  fd_ = retry([&] { return ::open(temporary_.c_str(), O_RDWR | create | O_NOFOLLOW | O_CLOEXEC, 0666); });
  const auto fail = [&](const std::string& why) {
    if (fd_ >= 0) ::close(fd_);
    throw RunError(printable(temporary_.string(), 400), why);
  };
  struct stat status {};
  if (fd_ < 0 || ::fstat(fd_, &status) != 0) fail("cannot be written: " + errno_text());
  if (!S_ISREG(status.st_mode)) fail(fmt::format("is {}, expected a regular file", kind_of(status.st_mode)));
  if (static_cast<uint64_t>(status.st_size) < size)
    fail(fmt::format("has {} bytes, expected at least {}", status.st_size, size));
  const auto end = static_cast<off_t>(size);
  if (retry([&] { return ::ftruncate(fd_, end); }) != 0 || ::lseek(fd_, end, SEEK_SET) != end)
    fail("cannot be cut: " + errno_text());
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!stays_ && !temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = retry([&] { return ::write(fd_, bytes.data(), std::min(bytes.size(), kWriteCall)); });
    if (n < 0) throw RunError(printable(path_.string()), "writing: " + errno_text());
    if (n == 0) throw RunError(printable(path_.string()), "writing: no progress");
    bytes = bytes.subspan(static_cast<size_t>(n));
    size_ += static_cast<uint64_t>(n);
    if (size_ - started_ >= kStretch) write_behind();
  }
}

void AtomicFile::write_behind() {
  // No hint: the kernel reports an error of the disk once, so fsync would not see this one again. A file
  // system without the call keeps its pages.
  const auto sync_range = [this](uint64_t begin, uint64_t end, unsigned flags) {
    const auto call = [&] {
      return ::sync_file_range(fd_, static_cast<off_t>(begin), static_cast<off_t>(end - begin), flags);
    };
    if (retry(call) != 0 && errno != ENOSYS && errno != EINVAL && errno != ESPIPE)
      throw RunError(printable(path_.string()), "writing: " + errno_text());
  };
  sync_range(started_, size_, SYNC_FILE_RANGE_WRITE);
  started_ = size_;
  if (started_ < dropped_ + kInMemory + kStretch) return;
  const uint64_t end = started_ - kInMemory;
  sync_range(dropped_, end, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  ::posix_fadvise(fd_, static_cast<off_t>(dropped_), static_cast<off_t>(end - dropped_), POSIX_FADV_DONTNEED);
  dropped_ = end;
}

void AtomicFile::overwrite(std::span<const std::byte> bytes, uint64_t offset) {
  if (offset > size_ || bytes.size() > size_ - offset) throw std::logic_error("overwrite: not written yet");
  while (!bytes.empty()) {
    const ssize_t n =
        retry([&] { return ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (n < 0) throw RunError(printable(path_.string()), "writing: " + errno_text());
    if (n == 0) throw RunError(printable(path_.string()), "writing: no progress");
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

void AtomicFile::read(std::span<std::byte> out, uint64_t offset) const {
  if (offset > size_ || out.size() > size_ - offset) throw std::logic_error("read: not written yet");
  while (!out.empty()) {
    const ssize_t n = retry([&] { return ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset)); });
    if (n < 0) throw RunError(printable(path_.string()), "reading back: " + errno_text());
    if (n == 0) throw RunError(printable(path_.string()), "reading back: it became shorter");
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

void AtomicFile::sync() {
  if (retry([&] { return ::fsync(fd_); }) != 0)
    throw RunError(printable(path_.string()), "fsync: " + errno_text());
}

void AtomicFile::commit() {
  sync();
  // After close() the descriptor is gone even when it reports an error (Linux: close(2), "Dealing with
  // errors").
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
    throw RunError(printable(path_.string()), "close: " + errno_text());
  }
  rename_synced(temporary_, path_);
  temporary_.clear();
}

LineFile::LineFile(const std::filesystem::path& path) : path_(path.string()) {
  fd_ = retry([&] { return ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666); });
  if (fd_ < 0) throw RunError(printable(path_), "cannot be opened for writing: " + errno_text());
}

LineFile::~LineFile() {
  write_waiting();
  ::close(fd_);
}

bool LineFile::write_waiting() {
  while (!waiting_.empty()) {
    const ssize_t n = retry([&] { return ::write(fd_, waiting_.data(), waiting_.size()); });
    if (n < 0) return false;
    waiting_.erase(0, static_cast<size_t>(n));
  }
  return true;
}

void LineFile::append(std::string_view text) {
  waiting_ += text;
  write_waiting();
}

void LineFile::sync() {
  // EINVAL: a pipe or a terminal has nothing to sync.
  if (retry([&] { return ::fsync(fd_); }) != 0 && errno != EINVAL)
    throw RunError(printable(path_), "fsync: " + errno_text());
}

void LineFile::settle() {
  if (!write_waiting()) throw RunError(printable(path_), "writing: " + errno_text(), "make room and resume");
}

void write_atomically(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace dsv3
