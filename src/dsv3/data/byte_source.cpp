#include "dsv3/data/byte_source.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace {

constexpr uint64_t kFreeExpansion = 64 << 20, kMaxExpansion = 500;

class FileBytes : public ByteSource {
 public:
  FileBytes(const std::filesystem::path& path, uint64_t offset)
      : ByteSource(path.string()), file_(path), at_(std::min(offset, file_.size())) {}

  std::optional<uint64_t> size() const override { return file_.size(); }

 private:
  std::string_view read() override {
    buffer_.resize(std::min<uint64_t>(kPieceBytes, file_.size() - at_));
    file_.read(std::as_writable_bytes(std::span(buffer_)), at_);
    at_ += buffer_.size();
    return buffer_;
  }

  InputFile file_;
  uint64_t at_;
  std::string buffer_;
};

class StandardInput : public ByteSource {
 public:
  StandardInput() : ByteSource("standard input"), buffer_(kPieceBytes, '\0') {}

 private:
  // Filled up: a pipe gives 64 kB at a time.
  std::string_view read() override {
    size_t size = 0;
    while (!ended_ && size < buffer_.size()) {
      const ssize_t n = ::read(STDIN_FILENO, buffer_.data() + size, buffer_.size() - size);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw RunError(name(), std::string("cannot be read: ") + std::strerror(errno));
      ended_ = n == 0;  // a terminal would be asked again
      size += static_cast<size_t>(n);
    }
    return std::string_view(buffer_).substr(0, size);
  }

  std::string buffer_;
  bool ended_ = false;
};

// What gzip and Zstandard share. A decoder's step() takes from `in_` and fills `out`.
class Decompressed : public ByteSource {
  std::string_view read() override {
    size_t size = 0;
    while (size < out_.size()) {
      if (in_.empty()) {
        in_ = compressed_->next();
        taken_ += in_.size();
      }
      const bool end = in_.empty();
      if (end && !inside_) break;
      // At the end too: the decoder may hold what did not fit last time.
      const size_t got = step(in_, out_.data() + size, out_.size() - size, inside_);
      if (end && got == 0 && inside_) refuse("ends in the middle of the compressed data", "it was cut off");
      size += got;
    }
    given_ += size;
    if (given_ > kFreeExpansion && given_ / kMaxExpansion > taken_) {
      refuse(fmt::format("{} bytes became more than {}, {} times as many, as no text does", taken_, given_,
                         kMaxExpansion),
             "decompress it yourself if it is text");
    }
    return std::string_view(out_).substr(0, size);
  }

 protected:
  Decompressed(std::unique_ptr<ByteSource> compressed, uint64_t skipped)
      : ByteSource(compressed->name(), skipped),
        compressed_(std::move(compressed)),
        out_(kPieceBytes, '\0') {}

  // Takes bytes off the front of `in` and returns how many were written to out. inside:
  // whether a member or frame is open afterwards.
  virtual size_t step(std::string_view& in, char* out, size_t room, bool& inside) = 0;

  [[noreturn]] void refuse(std::string_view why, std::string_view hint = {}) const {
    throw InputError(name(), fmt::format("compressed byte {}", taken_ - in_.size()), why, hint);
  }

 private:
  std::unique_ptr<ByteSource> compressed_;
  std::string out_;
  std::string_view in_;
  uint64_t taken_ = 0, given_ = 0;
  bool inside_ = false;
};

class Gzip : public Decompressed {
 public:
  Gzip(std::unique_ptr<ByteSource> compressed, uint64_t skipped)
      : Decompressed(std::move(compressed), skipped) {
    // 16: gzip's header, its CRC-32 and its length are wanted and checked.
    if (inflateInit2(&stream_, 16 + MAX_WBITS) != Z_OK) throw RunError(name(), "zlib: out of memory");
  }
  ~Gzip() override { inflateEnd(&stream_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

 private:
  size_t step(std::string_view& in, char* out, size_t room, bool& inside) override {
    if (!inside) inflateReset(&stream_);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(room);
    const int code = inflate(&stream_, Z_NO_FLUSH);
    in.remove_prefix(in.size() - stream_.avail_in);
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) {
      refuse(fmt::format("damaged gzip data: {}", stream_.msg == nullptr ? zError(code) : stream_.msg));
    }
    inside = code != Z_STREAM_END;
    return room - stream_.avail_out;
  }

  z_stream stream_{};
};

class Zstd : public Decompressed {
 public:
  Zstd(std::unique_ptr<ByteSource> compressed, uint64_t skipped)
      : Decompressed(std::move(compressed), skipped), stream_(ZSTD_createDStream(), ZSTD_freeDStream) {
    if (!stream_) throw RunError(name(), "zstd: out of memory");
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  }

 private:
  static constexpr int kMaxWindowLog = 27;

  size_t step(std::string_view& in, char* out, size_t room, bool& inside) override {
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out, room, 0};
    const size_t code = ZSTD_decompressStream(stream_.get(), &to, &from);
    in.remove_prefix(from.pos);
    if (ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge) {
      refuse("a zstd window of more than 128 MB", "zstd --long=31 -dc FILE | dsv3 prepare - --format ...");
    }
    if (ZSTD_isError(code)) refuse(fmt::format("damaged zstd data: {}", ZSTD_getErrorName(code)));
    inside = code != 0;
    return to.pos;
  }

  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
};

}  // namespace

std::string_view ByteSource::next() {
  std::string_view bytes = read();
  for (; !bytes.empty() && bytes.size() <= skipped_; bytes = read()) skipped_ -= bytes.size();
  bytes.remove_prefix(std::min<uint64_t>(skipped_, bytes.size()));
  skipped_ = 0;
  return bytes;
}

std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path, Compression compression,
                                       uint64_t offset) {
  std::unique_ptr<ByteSource> bytes;
  if (path == "-") {
    bytes = std::make_unique<StandardInput>();
  } else {
    bytes = std::make_unique<FileBytes>(path, compression == Compression::none ? offset : 0);
  }
  if (compression == Compression::gzip) return std::make_unique<Gzip>(std::move(bytes), offset);
  if (compression == Compression::zstd) return std::make_unique<Zstd>(std::move(bytes), offset);
  return bytes;
}

}  // namespace dsv3
