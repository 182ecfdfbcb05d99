#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/indexed_format.h"

namespace dsv3 {

using namespace indexed_format;

namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr int64_t kScanItems = 1 << 16;  // lengths in memory at once

// Collects small writes; AtomicFile makes a system call of each.
class Buffered {
 public:
  template <typename... Args>
  explicit Buffered(const Args&... file) : file_(file...) {
    buffer_.reserve(kBufferBytes);
  }
  template <typename T>
  void put(std::span<const T> values) {
    auto bytes = std::as_bytes(values);
    if (buffer_.size() + bytes.size() > kBufferBytes) flush();
    if (bytes.size() > kBufferBytes) return file_.write(bytes);
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  template <typename T>
  void put(const T& value) {
    put(std::span<const T>(&value, 1));
  }
  // Of what was flushed.
  template <typename T>
  void read(std::span<T> out, uint64_t offset) const {
    file_.read(std::as_writable_bytes(out), offset);
  }
  void overwrite(std::span<const std::byte> bytes, uint64_t offset) { file_.overwrite(bytes, offset); }
  void flush() {
    file_.write(std::span<const std::byte>(buffer_));
    buffer_.clear();
  }
  void sync() {
    flush();
    file_.sync();
  }
  void commit() {
    flush();
    file_.commit();
  }

 private:
  AtomicFile file_;
  std::vector<std::byte> buffer_;
};

}  // namespace

struct IndexedDatasetWriter::State {
  State(const std::filesystem::path& prefix, int64_t vocab_size)
      : prefix(prefix), vocab_size(vocab_size), bin(bin_path(prefix)), idx(idx_path(prefix)) {
    put_empty_header();
  }
  State(const std::filesystem::path& prefix, int64_t vocab_size, const std::filesystem::path& aside,
        const IndexedSizes& from)
      : prefix(prefix),
        vocab_size(vocab_size),
        bin(bin_path(prefix), bin_path(aside), from.bin_bytes),
        idx(idx_path(prefix), idx_path(aside), from.documents == 0 ? 0 : from.idx_bytes()),
        sizes(from) {
    if (from.documents == 0) put_empty_header();
  }

  std::filesystem::path prefix;
  int64_t vocab_size;
  Buffered bin;
  Buffered idx;                  // the header and lengths: documents may be more than memory holds
  std::vector<uint16_t> narrow;  // append's ids as they are stored
  IndexedSizes sizes;
  int64_t open_tokens = 0;  // of the document that end_document() has not closed

  bool wide() const { return vocab_size > 65536; }

  // Until the counts are known.
  void put_empty_header() { idx.put(std::array<std::byte, kHeaderBytes>()); }

  void put_pointers() {
    idx.flush();
    std::vector<int32_t> lengths;
    int64_t pointer = 0;
    for (int64_t first = 0; first < sizes.documents; first += kScanItems) {
      lengths.resize(static_cast<size_t>(std::min(kScanItems, sizes.documents - first)));
      idx.read(std::span(lengths), kHeaderBytes + 4 * static_cast<uint64_t>(first));
      for (const int32_t length : lengths) {
        idx.put(pointer);
        pointer += int64_t{length} * (wide() ? 4 : 2);
      }
    }
  }

  void put_header() {
    std::vector<std::byte> header;
    const auto put = [&]<typename T>(const T& value) {
      const auto bytes = std::as_bytes(std::span(&value, 1));
      header.insert(header.end(), bytes.begin(), bytes.end());
    };
    put(kMagic);
    put(kVersion);
    put(wide() ? kInt32 : kUint16);
    put(static_cast<uint64_t>(sizes.documents));
    put(static_cast<uint64_t>(sizes.documents + 1));
    idx.overwrite(header, 0);
  }
};

IndexedDatasetWriter::IndexedDatasetWriter(const std::filesystem::path& prefix, int64_t vocab_size)
    : state_(std::make_unique<State>(prefix, vocab_size)) {}

IndexedDatasetWriter::IndexedDatasetWriter(const std::filesystem::path& prefix, int64_t vocab_size,
                                           const std::filesystem::path& aside, const IndexedSizes& from)
    : state_(std::make_unique<State>(prefix, vocab_size, aside, from)) {}

IndexedDatasetWriter::~IndexedDatasetWriter() = default;

uint64_t IndexedSizes::idx_bytes() const {
  return kHeaderBytes + sizeof(int32_t) * static_cast<uint64_t>(documents);
}

uint64_t IndexedSizes::whole_idx_bytes() const {
  return idx_bytes() + sizeof(int64_t) * (2 * static_cast<uint64_t>(documents) + 1);
}

void IndexedDatasetWriter::append(std::span<const int32_t> ids) {
  State& s = *state_;
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (static_cast<int64_t>(ids.size()) > kMost - s.open_tokens) {
    throw InputError(bin_path(s.prefix).string(), fmt::format("document {}", s.sizes.documents),
                     fmt::format("more than {} tokens, the most that .idx can hold", kMost),
                     "cut the document in two");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < s.vocab_size) continue;
    throw InputError(bin_path(s.prefix).string(),
                     fmt::format("token {}", s.sizes.tokens + static_cast<int64_t>(i)),
                     fmt::format("id {}, expected 0 to {}", ids[i], s.vocab_size - 1));
  }
  if (!ids.empty())
    s.sizes.largest_id = std::max<int64_t>(s.sizes.largest_id, *std::max_element(ids.begin(), ids.end()));
  if (s.wide()) {
    s.bin.put(ids);
  } else {
    // By pieces: a document may have 2^31 ids.
    for (std::span<const int32_t> rest = ids; !rest.empty();) {
      const auto piece = rest.first(std::min(rest.size(), kBufferBytes / sizeof(uint16_t)));
      rest = rest.subspan(piece.size());
      s.narrow.assign(piece.begin(), piece.end());
      s.bin.put(std::span<const uint16_t>(s.narrow));
    }
  }
  s.sizes.bin_bytes += ids.size() * (s.wide() ? sizeof(int32_t) : sizeof(uint16_t));
  s.sizes.tokens += static_cast<int64_t>(ids.size());
  s.open_tokens += static_cast<int64_t>(ids.size());
}

void IndexedDatasetWriter::end_document() {
  State& s = *state_;
  s.idx.put(static_cast<int32_t>(s.open_tokens));
  ++s.sizes.documents;
  s.sizes.longest_document = std::max(s.sizes.longest_document, s.open_tokens);
  s.open_tokens = 0;
}

void IndexedDatasetWriter::add_document(std::span<const int32_t> ids) {
  append(ids);
  end_document();
}

void IndexedDatasetWriter::sync() {
  state_->bin.sync();
  state_->idx.sync();
}

void IndexedDatasetWriter::complete() {
  State& s = *state_;
  if (s.open_tokens > 0) end_document();
  if (s.sizes.documents == 0) throw InputError(idx_path(s.prefix).string(), "documents", "none to write");

  s.put_pointers();
  for (int64_t document = 0; document <= s.sizes.documents; ++document) s.idx.put(document);
  s.idx.flush();
  s.put_header();
  sync();
}

void IndexedDatasetWriter::finish() {
  State& s = *state_;
  complete();
  std::error_code error;
  if (std::filesystem::remove(idx_path(s.prefix), error)) fsync_directory(s.prefix.parent_path());
  if (error) throw RunError(printable(idx_path(s.prefix).string()), "cannot be replaced: " + error.message());
  s.bin.commit();
  s.idx.commit();
}

const IndexedSizes& IndexedDatasetWriter::sizes() const { return state_->sizes; }

}  // namespace dsv3
