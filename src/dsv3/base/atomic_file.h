#pragma once
// Files that are whole or absent, and files that grow by lines.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace dsv3 {

// Written beside its final name, fsynced and renamed by commit(); removed when destroyed before.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  // Goes on behind the first `size` bytes of `temporary`, on the same file system, which is made when size is
  // 0; what it holds beyond them is cut off. Destroyed before commit() it stays. RunError when it is shorter,
  // a link or no regular file.
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, uint64_t size);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends. I/O failures (ENOSPC, EIO, a short write that makes no progress) throw RunError naming the path.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  // Replaces bytes that were written before; std::logic_error outside of them.
  void overwrite(std::span<const std::byte> bytes, uint64_t offset);
  // Fills out with what was written from offset on; std::logic_error outside of it.
  void read(std::span<std::byte> out, uint64_t offset) const;
  uint64_t size() const { return size_; }
  // What was written outlives a crash of the machine; RunError when it cannot.
  void sync();
  void commit();

 private:
  void write_behind();

  std::filesystem::path path_, temporary_;
  bool stays_ = false;  // when destroyed before commit()
  int fd_ = -1;
  uint64_t size_ = 0;
  // [Note: write-behind] Bytes that the disk was told to begin with, and that have left the page cache.
  uint64_t started_ = 0, dropped_ = 0;
};

// A file that grows by lines while its run goes on. A disk can be full for a moment, by a checkpoint that
// fails and gives the room back: what cannot be written waits, in order.
class LineFile {
 public:
  // Appends to what the file holds. RunError when it cannot be opened.
  explicit LineFile(const std::filesystem::path& path);
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  // text ends its lines. Never fails: settle() tells.
  void append(std::string_view text);
  // Tries once more what waits; RunError when it still does.
  void settle();
  void sync();  // what was written survives a crash of the machine; RunError when it may not

 private:
  bool write_waiting();  // false: errno says why not

  std::string path_, waiting_;
  int fd_ = -1;
};

// Writes text to path at once (AtomicFile of one piece).
void write_atomically(const std::filesystem::path& path, std::string_view text);

}  // namespace dsv3
