#pragma once
// Files from outside, folders, and what an output may be. Files that dsv3 writes: atomic_file.h.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsv3 {

// A regular file from outside, read with pread: a file that shrinks while it is read is an InputError, never
// a SIGBUS. Opening anything but a regular file (FIFO, directory, device) throws InputError without blocking.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  virtual ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  // Fills out from offset; throws InputError when the file ends before or the disk cannot read it (EIO).
  // Virtual for files whose bytes are checked before anybody sees them (convert/checked_file.h).
  virtual void read(std::span<std::byte> out, uint64_t offset) const;

 private:
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string path_;
};

// The whole of a small text file; InputError when it is larger than max_bytes.
std::string read_text(const std::filesystem::path& path, uint64_t max_bytes);

// By what one sees that a file is no longer what it was.
struct FileStamp {
  int64_t size = 0, seconds = 0, nanoseconds = 0;  // and the time of its last change
};
// Nothing when the path leads to none.
std::optional<FileStamp> file_stamp(const std::filesystem::path& path);

// UsageError when a path that the user named does not exist. (A file missing inside a folder is an
// InputError.)
void require_exists(const std::filesystem::path& path);

// UsageError naming the flag when one of `outs` is one of the inputs, under whatever name: writing it would
// lose an input. "-" is standard input. Costs one stat(2) an input.
void require_no_input(std::string_view flag, const std::vector<std::filesystem::path>& outs,
                      const std::vector<std::filesystem::path>& inputs);

// UsageError naming the flag when `out` cannot be written without a loss: it is one of the inputs or lies in
// one that is a folder, it is a folder or device, or its own folder does not exist.
void require_output(std::string_view flag, const std::filesystem::path& out,
                    const std::vector<std::filesystem::path>& inputs);

void fsync_directory(const std::filesystem::path& path);
// Creates a folder and those above it that are missing; after a crash they are there. Nothing when it is
// there already. RunError{the folder that cannot be created}.
void create_folders(const std::filesystem::path& path);
// Gives a file or folder another name in the same folder, and syncs that folder: after a crash it has the new
// name. What `to` was is replaced (an empty folder, if `from` is one). RunError{to, with the name of from}.
void rename_synced(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace dsv3
