#include "dsv3/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/system_call.h"

namespace dsv3 {

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
