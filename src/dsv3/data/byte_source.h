#pragma once
// Bytes of a text file, plain or compressed, or of standard input, piece by piece in bounded memory.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace dsv3 {

enum class Compression { none, gzip, zstd };

class ByteSource {
 public:
  static constexpr size_t kPieceBytes = 256 << 10;

  virtual ~ByteSource() = default;
  // The next bytes, at most kPieceBytes, good until the next call; empty at the end. InputError: compressed
  // data that is damaged, cut off or expands as no text does; a file that shrank. RunError: cannot be read.
  std::string_view next();
  // How many bytes there are in all, where that is known before they are read.
  virtual std::optional<uint64_t> size() const { return std::nullopt; }
  // For messages: the path, or "standard input".
  const std::string& name() const { return name_; }

 protected:
  explicit ByteSource(std::string name, uint64_t skipped = 0) : name_(std::move(name)), skipped_(skipped) {}

 private:
  virtual std::string_view read() = 0;  // as next(), from the begin on

  std::string name_;
  uint64_t skipped_;  // bytes that read() still has to give before the first that next() gives
};

// From byte `offset` of the text on, which is not beyond its end. "-" is standard input. gzip (RFC 1952) and
// Zstandard (RFC 8878) may hold several members or frames; the checksums that they carry are checked. Beyond
// 64 MB, what is more than 500 times its compressed size is refused: text is not so, and a few kilobytes
// could fill a disk. Zstandard's window is at most 128 MB.
std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path, Compression compression,
                                       uint64_t offset = 0);

}  // namespace dsv3
