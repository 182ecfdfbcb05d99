#include "dsv3/formats/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr uint64_t kMaxHeader = 65535;
constexpr size_t kMaxDims = 64;

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// The header is a Python literal: {'descr': '<i8', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
 public:
  HeaderParser(const std::string& file, std::string_view text) : file_(file), text_(text) {}

  Header parse() {
    Header header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key(quoted());
      expect(':');
      if (key == "descr" && !std::exchange(descr, true)) {
        header.descr = quoted();
      } else if (key == "fortran_order" && !std::exchange(order, true)) {
        header.fortran_order = boolean();
      } else if (key == "shape" && !std::exchange(shape, true)) {
        header.shape = tuple();
      } else {
        throw InputError(file_, key, "unknown or duplicate key in the header");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) fail("the end");
    if (!descr || !order || !shape) fail("all of descr, fortran_order and shape before");
    return header;
  }

 private:
  [[noreturn]] void fail(std::string_view expected) const {
    throw InputError(file_, fmt::format("header byte {}", at_), fmt::format("expected {}", expected));
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(fmt::format("'{}'", c));
  }
  std::string_view quoted() {
    const char quote = take('\'') ? '\'' : take('"') ? '"' : '\0';
    const size_t end = quote ? text_.find(quote, at_) : text_.npos;
    if (end == text_.npos) fail("a quoted string, as for an array of plain numbers");
    const std::string_view value = text_.substr(at_, end - at_);
    at_ = end + 1;
    return value;
  }
  bool boolean() {
    skip_space();
    for (std::string_view word : {"True", "False"}) {
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return word == "True";
      }
    }
    fail("True or False");
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> dims;
    expect('(');
    while (!take(')')) {
      skip_space();
      int64_t dim = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), dim);
      if (error != std::errc() || dim < 0) throw InputError(file_, "shape", "holds a dim that is no size");
      if (dims.size() == kMaxDims)
        throw InputError(file_, "shape", fmt::format("more than {} dims", kMaxDims));
      dims.push_back(dim);
      at_ = static_cast<size_t>(end - text_.data());
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return dims;
  }

  const std::string& file_;
  std::string_view text_;
  size_t at_ = 0;
};

// Reads the header; begin becomes the first byte of the data.
Header read_header(const InputFile& file, uint64_t& begin) {
  char start[12] = {};
  file.read(std::as_writable_bytes(std::span(start, std::min<uint64_t>(12, file.size()))), 0);
  if (file.size() < 12 || std::string_view(start, 6) != kMagic) {
    throw InputError(file.path(), "byte 0", "is no .npy file", "write one with numpy.save");
  }
  const int version = start[6];
  if (version < 1 || version > 3) {
    throw InputError(file.path(), "byte 6", fmt::format("version {}, expected 1 to 3", version));
  }
  // Little-endian, two bytes in version 1, four after.
  uint32_t length = 0;
  std::memcpy(&length, start + 8, version == 1 ? 2 : 4);
  begin = (version == 1 ? 10 : 12) + static_cast<uint64_t>(length);
  if (length > kMaxHeader || begin > file.size()) {
    throw InputError(file.path(), "byte 8",
                     fmt::format("header length {} in a file of {} bytes", length, file.size()));
  }
  std::string text(length, '\0');
  file.read(std::as_writable_bytes(std::span(text)), begin - length);
  return HeaderParser(file.path(), text).parse();
}

template <class T>
void read_values(const InputFile& file, uint64_t begin, std::span<int64_t> out) {
  std::vector<T> piece(std::min<size_t>(out.size(), 1 << 16));
  for (size_t i = 0; i < out.size(); i += piece.size()) {
    const std::span<T> now(piece.data(), std::min(piece.size(), out.size() - i));
    file.read(std::as_writable_bytes(now), begin + i * sizeof(T));
    std::ranges::copy(now, out.begin() + static_cast<ptrdiff_t>(i));
  }
}

}  // namespace

NpyArray read_npy_int(const std::filesystem::path& path) {
  const InputFile file(path);
  uint64_t begin = 0;
  const Header header = read_header(file, begin);

  struct Kind {
    std::string_view descr;
    uint64_t size;
    void (*read)(const InputFile&, uint64_t, std::span<int64_t>);
  };
  static constexpr Kind kKinds[] = {{"<i8", 8, read_values<int64_t>},
                                    {"<i4", 4, read_values<int32_t>},
                                    {"<u2", 2, read_values<uint16_t>},
                                    {"|u1", 1, read_values<uint8_t>},
                                    {"|b1", 1, read_values<uint8_t>}};
  const auto* kind = std::ranges::find(kKinds, header.descr, &Kind::descr);
  if (kind == std::end(kKinds)) {
    throw InputError(
        file.path(), "descr",
        fmt::format("dtype '{}', expected bool, uint8, uint16, int32 or int64 in little-endian order",
                    printable(header.descr, 32)),
        "convert it with array.astype('int64')");
  }
  const auto numel = checked_numel(header.shape);
  const auto bytes = numel ? checked_mul(static_cast<uint64_t>(*numel), kind->size) : std::nullopt;
  if (!bytes || *bytes != file.size() - begin) {
    throw InputError(file.path(), "shape",
                     fmt::format("({}) of '{}' does not match the {} bytes of data",
                                 fmt::join(header.shape, ", "), header.descr, file.size() - begin));
  }
  if (header.fortran_order && std::ranges::count_if(header.shape, [](int64_t dim) { return dim > 1; }) > 1) {
    throw InputError(file.path(), "fortran_order", "True, expected C order",
                     "write it with numpy.ascontiguousarray");
  }
  NpyArray array{header.shape, std::vector<int64_t>(static_cast<size_t>(*numel))};
  kind->read(file, begin, array.values);
  if (header.descr == "|b1") {
    // Any other byte is true in numpy too.
    for (int64_t& value : array.values) value = value != 0;
  }
  return array;
}

void write_npy_int64(const std::filesystem::path& path, std::span<const int64_t> shape,
                     std::span<const int64_t> values) {
  const auto numel = checked_numel(shape);
  if (!numel || static_cast<size_t>(*numel) != values.size()) {
    throw std::logic_error(fmt::format("shape ({}) for {} values", fmt::join(shape, ", "), values.size()));
  }
  std::string header = fmt::format("{{'descr': '<i8', 'fortran_order': False, 'shape': ({}{}), }}",
                                   fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  header.resize((header.size() + 10) / 64 * 64 + 64 - 10 - 1, ' ');  // the data begins at a multiple of 64
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  AtomicFile file(path);
  file.write(kMagic);
  file.write(std::string_view("\x01\x00", 2));
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  file.write(std::as_bytes(values));
  file.commit();
}

}  // namespace dsv3
