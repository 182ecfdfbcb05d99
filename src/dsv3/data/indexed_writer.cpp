#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/indexed_format.h"

namespace dsv3 {

using namespace indexed_format;

namespace {

constexpr size_t kBufferBytes = 1 << 20;

// Collects small writes; AtomicFile makes a system call of each.
class Buffered {
 public:
  explicit Buffered(const std::filesystem::path& path) : file_(path) { buffer_.reserve(kBufferBytes); }
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
  void flush() {
    file_.write(std::span<const std::byte>(buffer_));
    buffer_.clear();
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
      : prefix(prefix), vocab_size(vocab_size), bin(bin_path(prefix)) {}

  std::filesystem::path prefix;
  int64_t vocab_size;
  Buffered bin;
  std::vector<uint16_t> narrow;  // append's ids as they are stored
  std::vector<int32_t> lengths;
  int64_t open_tokens = 0;  // of the document that end_document() has not closed
  int64_t tokens = 0, largest_id = -1, longest = 0;

  bool wide() const { return vocab_size > 65536; }
};

IndexedDatasetWriter::IndexedDatasetWriter(const std::filesystem::path& prefix, int64_t vocab_size)
    : state_(std::make_unique<State>(prefix, vocab_size)) {}

IndexedDatasetWriter::~IndexedDatasetWriter() = default;

void IndexedDatasetWriter::append(std::span<const int32_t> ids) {
  State& s = *state_;
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (static_cast<int64_t>(ids.size()) > kMost - s.open_tokens) {
    throw InputError(bin_path(s.prefix).string(), fmt::format("document {}", s.lengths.size()),
                     fmt::format("more than {} tokens, the most that .idx can hold", kMost),
                     "cut the document in two");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < s.vocab_size) continue;
    throw InputError(bin_path(s.prefix).string(), fmt::format("token {}", s.tokens + static_cast<int64_t>(i)),
                     fmt::format("id {}, expected 0 to {}", ids[i], s.vocab_size - 1));
  }
  if (!ids.empty()) s.largest_id = std::max<int64_t>(s.largest_id, *std::max_element(ids.begin(), ids.end()));
  if (s.wide()) {
    s.bin.put(ids);
  } else {
    s.narrow.assign(ids.begin(), ids.end());
    s.bin.put(std::span<const uint16_t>(s.narrow));
  }
  s.tokens += static_cast<int64_t>(ids.size());
  s.open_tokens += static_cast<int64_t>(ids.size());
}

void IndexedDatasetWriter::end_document() {
  State& s = *state_;
  s.lengths.push_back(static_cast<int32_t>(s.open_tokens));
  s.longest = std::max(s.longest, s.open_tokens);
  s.open_tokens = 0;
}

void IndexedDatasetWriter::add_document(std::span<const int32_t> ids) {
  append(ids);
  end_document();
}

void IndexedDatasetWriter::finish() {
  State& s = *state_;
  if (s.open_tokens > 0) end_document();
  if (s.lengths.empty()) throw InputError(idx_path(s.prefix).string(), "documents", "none to write");

  Buffered idx(idx_path(s.prefix));
  idx.put(kMagic);
  idx.put(kVersion);
  idx.put(s.wide() ? kInt32 : kUint16);
  idx.put(static_cast<uint64_t>(s.lengths.size()));
  idx.put(static_cast<uint64_t>(s.lengths.size() + 1));
  for (int32_t length : s.lengths) idx.put(length);
  int64_t pointer = 0;
  for (int32_t length : s.lengths) {
    idx.put(pointer);
    pointer += int64_t{length} * (s.wide() ? 4 : 2);
  }
  for (int64_t document = 0; document <= num_documents(); ++document) idx.put(document);
  idx.flush();
  s.bin.flush();  // a full disk shows here, while the old pair still stands

  std::error_code error;
  if (std::filesystem::remove(idx_path(s.prefix), error)) fsync_directory(s.prefix.parent_path());
  if (error) throw RunError(printable(idx_path(s.prefix).string()), "cannot be replaced: " + error.message());
  s.bin.commit();
  idx.commit();
}

int64_t IndexedDatasetWriter::num_documents() const { return static_cast<int64_t>(state_->lengths.size()); }
int64_t IndexedDatasetWriter::num_tokens() const { return state_->tokens; }
int64_t IndexedDatasetWriter::largest_id() const { return state_->largest_id; }
int64_t IndexedDatasetWriter::longest_document() const { return state_->longest; }

}  // namespace dsv3
