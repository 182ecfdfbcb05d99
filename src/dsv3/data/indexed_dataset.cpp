#include "dsv3/data/indexed_dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/data/indexed_format.h"

namespace dsv3 {

using namespace indexed_format;

struct IndexedDataset::Files {
  InputFile idx, bin;
  uint64_t item_bytes = 0, sequences = 0, documents = 0, tokens = 0;

  uint64_t lengths_at() const { return kHeaderBytes; }
  uint64_t pointers_at() const { return lengths_at() + 4 * sequences; }
  uint64_t documents_at() const { return pointers_at() + 8 * sequences; }

  [[noreturn]] void refuse(std::string_view field, std::string_view why, std::string_view hint = {}) const {
    throw InputError(idx.path(), field, why, hint);
  }
  void read_header();
  void check_sequences() const;
  void check_documents() const;
};

namespace {

constexpr uint64_t kScanItems = 1 << 14;  // entries of .idx in memory at once while it is checked

template <typename T>
void read_array(const InputFile& file, uint64_t offset, std::span<T> out) {
  file.read(std::as_writable_bytes(out), offset);
}

template <typename T>
T read_value(const InputFile& file, uint64_t offset) {
  T value;
  read_array(file, offset, std::span(&value, 1));
  return value;
}

// Looks at the names before opening, so that a mistyped prefix is the caller's mistake and half a pair is the
// data's.
void check_names(const std::filesystem::path& prefix) {
  std::error_code ignored;  // what can be seen but not opened, opening will name
  if (std::filesystem::exists(idx_path(prefix), ignored) ||
      std::filesystem::exists(bin_path(prefix), ignored))
    return;

  bool whole_name = prefix.extension() == ".bin" || prefix.extension() == ".idx";
  throw UsageError(
      printable(prefix.string()), "no token file: neither .bin nor .idx exists",
      whole_name ? "give the prefix, without .bin or .idx" : "dsv3 prepare TEXT --out PREFIX makes one");
}

}  // namespace

void IndexedDataset::Files::read_header() {
  if (idx.size() < kHeaderBytes) {
    refuse("size", fmt::format("{} bytes, expected at least the {} of the header", idx.size(), kHeaderBytes));
  }
  auto magic = read_value<std::array<char, kMagic.size()>>(idx, 0);
  if (magic != kMagic) {
    refuse("magic", fmt::format("'{}', expected 'MMIDIDX' and two zero bytes",
                                printable(std::string_view(magic.data(), magic.size()))));
  }
  if (auto version = read_value<uint64_t>(idx, 9); version != kVersion) {
    refuse("version", fmt::format("{}, expected {}", version, kVersion));
  }
  auto dtype = read_value<uint8_t>(idx, 17);
  if (dtype != kInt32 && dtype != kUint16) {
    refuse("dtype", fmt::format("code {}, expected {} (int32) or {} (uint16)", dtype, kInt32, kUint16));
  }
  item_bytes = dtype == kInt32 ? 4 : 2;

  sequences = read_value<uint64_t>(idx, 18);
  auto entries = read_value<uint64_t>(idx, 26);
  auto sequence_bytes = checked_mul<uint64_t>(sequences, 12),
       document_bytes = checked_mul<uint64_t>(entries, 8);
  auto body = sequence_bytes && document_bytes ? checked_add(*sequence_bytes, *document_bytes) : std::nullopt;
  auto expected = body ? checked_add(*body, kHeaderBytes) : std::nullopt;
  if (!expected || *expected != idx.size()) {
    refuse("counts",
           fmt::format("{} sequences and {} document indices need {} bytes, the file has {}", sequences,
                       entries, expected ? std::to_string(*expected) : "more than 2^64", idx.size()));
  }
  if (entries < 2 || sequences == 0) {
    refuse("documents", fmt::format("{} sequences and {} document indices: no document", sequences, entries));
  }
  documents = entries - 1;
}

void IndexedDataset::Files::check_sequences() const {
  std::vector<int32_t> lengths;
  std::vector<int64_t> pointers;
  int64_t end = 0;
  for (uint64_t first = 0; first < sequences; first += kScanItems) {
    uint64_t count = std::min(kScanItems, sequences - first);
    lengths.resize(count);
    pointers.resize(count);
    read_array(idx, lengths_at() + 4 * first, std::span(lengths));
    read_array(idx, pointers_at() + 8 * first, std::span(pointers));
    for (uint64_t i = 0; i < count; ++i) {
      if (lengths[i] < 0)
        refuse(fmt::format("lengths[{}]", first + i), fmt::format("{} is negative", lengths[i]));
      if (pointers[i] != end) {
        refuse(fmt::format("pointers[{}]", first + i),
               fmt::format("{}, expected {}, where the sequence before it ends", pointers[i], end));
      }
      end += int64_t{lengths[i]} *
             static_cast<int64_t>(item_bytes);  // < 2^34 each, at most 2^60 of them on disk
      if (static_cast<uint64_t>(end) > bin.size()) {
        refuse(fmt::format("lengths[{}]", first + i),
               fmt::format("{}: the sequence ends at byte {}, {} has {}", lengths[i], end, bin.path(),
                           bin.size()));
      }
    }
  }
  if (static_cast<uint64_t>(end) != bin.size()) {
    throw InputError(bin.path(), "size", fmt::format("{} bytes, its .idx describes {}", bin.size(), end),
                     "the two files do not belong together");
  }
}

void IndexedDataset::Files::check_documents() const {
  std::vector<int64_t> indices;
  int64_t before = 0;
  for (uint64_t first = 0; first <= documents; first += kScanItems) {
    indices.resize(std::min(kScanItems, documents + 1 - first));
    read_array(idx, documents_at() + 8 * first, std::span(indices));
    if (first == 0 && indices[0] != 0)
      refuse("document_indices[0]", fmt::format("{}, expected 0", indices[0]));
    for (uint64_t i = 0; i < indices.size(); ++i) {
      if (indices[i] < before || static_cast<uint64_t>(indices[i]) > sequences) {
        refuse(fmt::format("document_indices[{}]", first + i),
               fmt::format("{}, expected {} to {}", indices[i], before, sequences));
      }
      before = indices[i];
    }
  }
  if (static_cast<uint64_t>(before) != sequences) {
    refuse(fmt::format("document_indices[{}]", documents), fmt::format("{}, expected {}", before, sequences));
  }
}

IndexedDataset::IndexedDataset(const std::filesystem::path& prefix) {
  check_names(prefix);
  files_ = std::make_unique<Files>(
      Files{InputFile(idx_path(prefix)), InputFile(indexed_format::bin_path(prefix))});
  files_->read_header();
  if (files_->bin.size() % files_->item_bytes != 0) {
    throw InputError(
        bin_path(), "size",
        fmt::format("{} bytes is no multiple of the {} of an id", files_->bin.size(), files_->item_bytes));
  }
  files_->tokens = files_->bin.size() / files_->item_bytes;
  files_->check_sequences();
  files_->check_documents();
}

IndexedDataset::~IndexedDataset() = default;
IndexedDataset::IndexedDataset(IndexedDataset&&) noexcept = default;
IndexedDataset& IndexedDataset::operator=(IndexedDataset&&) noexcept = default;

const std::string& IndexedDataset::bin_path() const { return files_->bin.path(); }
int64_t IndexedDataset::num_documents() const { return static_cast<int64_t>(files_->documents); }
int64_t IndexedDataset::num_tokens() const { return static_cast<int64_t>(files_->tokens); }
const char* IndexedDataset::dtype() const { return files_->item_bytes == 2 ? "uint16" : "int32"; }

int64_t IndexedDataset::document_begin(int64_t document) const {
  const Files& f = *files_;
  auto sequence = read_value<uint64_t>(f.idx, f.documents_at() + 8 * static_cast<uint64_t>(document));
  if (sequence == f.sequences) return num_tokens();
  // Checked when the file was opened; it may have been written to since.
  uint64_t begin = sequence < f.sequences
                       ? read_value<uint64_t>(f.idx, f.pointers_at() + 8 * sequence) / f.item_bytes
                       : f.tokens + 1;
  if (begin > f.tokens)
    f.refuse(fmt::format("document_indices[{}]", document), "changed while the file is in use");
  return static_cast<int64_t>(begin);
}

int64_t IndexedDataset::document_of(int64_t token) const {
  int64_t low = 0, high = num_documents();  // document_begin(low) <= token < document_begin(high)
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    (document_begin(middle) <= token ? low : high) = middle;
  }
  return low;
}

void IndexedDataset::read(int64_t begin, std::span<int64_t> out) const {
  if (begin < 0 || begin > num_tokens() || out.size() > static_cast<uint64_t>(num_tokens() - begin)) {
    throw RunError(bin_path(),
                   fmt::format("read of {} tokens from {} on, it has {}", out.size(), begin, num_tokens()));
  }
  auto read_as = [&]<typename T>(T) {
    std::vector<T> ids(out.size());
    read_array(files_->bin, static_cast<uint64_t>(begin) * sizeof(T), std::span(ids));
    std::copy(ids.begin(), ids.end(), out.begin());
  };
  if (files_->item_bytes == 2) {
    read_as(uint16_t{});
  } else {
    read_as(int32_t{});
  }
}

void IndexedDataset::check_ids(int64_t begin, std::span<const int64_t> ids, int64_t vocab_size) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    throw InputError(
        bin_path(), fmt::format("token {}", begin + static_cast<int64_t>(i)),
        fmt::format("id {}, expected 0 to {} (vocabulary {})", ids[i], vocab_size - 1, vocab_size),
        "the data was prepared with another tokenizer, or the model's vocab_size is too small");
  }
}

}  // namespace dsv3
