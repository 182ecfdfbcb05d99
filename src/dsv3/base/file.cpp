#include "dsv3/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr uint64_t kWriteBehind = 16u << 20;
// cp's. A call that writes megabytes was slower on a virtual machine (tools/bench_convert.py), presumably
// because its pages come from large free blocks, which are the ones that went back to the host.
constexpr size_t kWriteCall = 128u << 10;

std::string errno_text() { return std::strerror(errno); }

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "no regular file";
}

template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path) : path_(path.string()) {
  // A NUL would cut the name that open() sees.
  if (path_.find('\0') != std::string::npos) throw InputError(path_, "", "a file name holds a NUL byte");
  // O_NONBLOCK: opening a FIFO that nobody writes must not wait. It changes nothing for regular files.
  fd_ = retry([&] { return ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY); });
  if (fd_ < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw InputError(path_, "", "no such file");
    if (errno == ENXIO) throw InputError(path_, "", "is a socket, expected a regular file");
    if (errno == ELOOP || errno == ENAMETOOLONG) throw InputError(path_, "", errno_text());
    throw RunError(printable(path_), errno_text());
  }
  struct stat status {};
  if (::fstat(fd_, &status) != 0) {
    const std::string why = errno_text();
    ::close(fd_);
    throw RunError(printable(path_), why);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd_);
    throw InputError(path_, "", fmt::format("is {}, expected a regular file", kind_of(status.st_mode)));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(other.size_), path_(std::move(other.path_)) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

void InputFile::read(std::span<std::byte> out, uint64_t offset) const {
  if (offset > size_ || out.size() > size_ - offset) {
    throw InputError(path_, fmt::format("byte {}", offset),
                     fmt::format("{} bytes wanted, the file ends at {}", out.size(), size_));
  }
  while (!out.empty()) {
    const ssize_t n = retry([&] { return ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset)); });
    // A bad sector: what the file holds there is lost, as if it were other bytes.
    if (n < 0 && errno == EIO) throw InputError(path_, fmt::format("byte {}", offset), errno_text());
    if (n < 0) throw RunError(printable(path_), fmt::format("reading byte {}: {}", offset, errno_text()));
    if (n == 0) {
      throw InputError(path_, fmt::format("byte {}", offset),
                       fmt::format("the file shrank while it was read (it had {} bytes)", size_));
    }
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

std::string read_text(const std::filesystem::path& path, uint64_t max_bytes) {
  const InputFile file(path);
  if (file.size() > max_bytes) {
    throw InputError(file.path(), "", fmt::format("{} bytes, at most {} expected", file.size(), max_bytes));
  }
  std::string text(file.size(), '\0');
  file.read(std::as_writable_bytes(std::span(text.data(), text.size())), 0);
  return text;
}

std::optional<FileStamp> file_stamp(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileStamp{status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

void require_exists(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw UsageError(printable(path.string(), 400), "no such file or folder");
  }
}

void require_no_input(std::string_view flag, const std::vector<std::filesystem::path>& outs,
                      const std::vector<std::filesystem::path>& inputs) {
  // By device and inode, since a file has many names; an output that is not there yet is no input.
  std::vector<std::pair<const std::filesystem::path*, struct stat>> there;
  for (const std::filesystem::path& out : outs) {
    struct stat status {};
    std::error_code ignored;  // weakly: "none/../a.txt" is a.txt once "none" is made
    if (::stat(std::filesystem::weakly_canonical(out, ignored).c_str(), &status) == 0)
      there.emplace_back(&out, status);
  }
  for (const std::filesystem::path& input : inputs) {
    struct stat status {};
    if ((input == "-" ? ::fstat(STDIN_FILENO, &status) : ::stat(input.c_str(), &status)) != 0) continue;
    for (const auto& [out, its] : there) {
      if (its.st_dev != status.st_dev || its.st_ino != status.st_ino) continue;
      throw UsageError(flag, printable(out->string(), 400) + " is an input too", "give another name");
    }
  }
}

void require_output(std::string_view flag, const std::filesystem::path& out,
                    const std::vector<std::filesystem::path>& inputs) {
  std::error_code error;
  auto refuse = [&](const std::string& why) {
    throw UsageError(std::string(flag), printable(out.string(), 400) + ": " + why, "name another file");
  };
  const std::filesystem::path folder = std::filesystem::absolute(out).parent_path();
  if (out.empty()) refuse("is empty");
  if (!std::filesystem::is_directory(folder, error)) refuse("its folder does not exist");
  const auto status = std::filesystem::status(out, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    refuse("is no regular file");
  require_no_input(flag, {out}, inputs);
  for (const std::filesystem::path& input : inputs) {
    if (input.empty()) continue;
    for (auto place = std::filesystem::weakly_canonical(folder, error); place.has_relative_path();
         place = place.parent_path())
      if (std::filesystem::is_directory(input, error) && std::filesystem::equivalent(place, input, error))
        refuse("lies in " + printable(input.string(), 400) + ", an input of this command");
  }
}

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
    : path_(std::move(path)), temporary_(std::move(temporary)), stays_(true), size_(size), started_(size) {
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
  }
  // [Note: write-behind] The disk begins now, beside what the caller does next, and not when commit() waits
  // for it. A hint: what fails shows in fsync, and no more than a stretch waits in memory for the kernel's
  // own turn.
  if (size_ - started_ < kWriteBehind) return;
  ::sync_file_range(fd_, static_cast<off_t>(started_), static_cast<off_t>(size_ - started_),
                    SYNC_FILE_RANGE_WRITE);
  started_ = size_;
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

void fsync_directory(const std::filesystem::path& path) {
  const std::string name = path.empty() ? "." : path.string();
  const int fd = retry([&] { return ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) throw RunError(printable(name), errno_text());
  // EINVAL: a file system that cannot sync directories has nothing to sync.
  const bool failed = retry([&] { return ::fsync(fd); }) != 0 && errno != EINVAL;
  const std::string why = errno_text();
  ::close(fd);
  if (failed) throw RunError(printable(name), "fsync: " + why);
}

void create_folders(const std::filesystem::path& path) {
  std::error_code error;
  if (path.empty() || std::filesystem::is_directory(path, error)) return;
  const std::filesystem::path parent = path.parent_path();
  if (!path.has_filename()) return create_folders(parent);  // "a/" is "a"
  create_folders(parent);
  // Somebody else may create it just now.
  std::filesystem::create_directory(path, error);
  if (error) throw RunError(printable(path.string(), 400), "cannot be created: " + error.message());
  fsync_directory(parent);
}

void rename_synced(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const std::string why = errno_text();
    throw RunError(printable(to.string(), 400),
                   fmt::format("rename from {}: {}", printable(from.filename().string()), why));
  }
  fsync_directory(to.parent_path());
}

}  // namespace dsv3
