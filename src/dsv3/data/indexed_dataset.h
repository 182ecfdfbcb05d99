#pragma once
// Megatron-Core token files: PREFIX.bin (ids) and PREFIX.idx (documents), written in one pass.
// Layout of .idx, little-endian: "MMIDIDX\0\0", u64 version 1, u8 dtype code (4 int32, 8 uint16), u64
// sequences, u64 entries, i32 lengths[sequences], i64 byte pointers[sequences], i64
// document_indices[entries]. Document d is sequences [document_indices[d], document_indices[d + 1]), so
// entries = documents + 1. Source: megatron/core/datasets/indexed_dataset.py. Sequences lie in .bin without
// gaps, as its writer leaves them.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace dsv3 {

// Both files are read with pread: one that shrinks under a mapping would kill the process (SIGBUS), under
// pread it is an InputError, and a sample is one system call on the same page cache. Memory does not grow
// with the files. Reading is safe from several threads.
class IndexedDataset {
 public:
  // prefix without .bin / .idx. Reads all of .idx once. UsageError when neither file exists; InputError
  // naming file and field for anything that the layout above does not allow (hostile rows 73 to 76 and 78).
  explicit IndexedDataset(const std::filesystem::path& prefix);
  ~IndexedDataset();
  IndexedDataset(IndexedDataset&&) noexcept;
  IndexedDataset& operator=(IndexedDataset&&) noexcept;

  const std::string& bin_path() const;
  int64_t num_documents() const;
  int64_t num_tokens() const;
  const char* dtype() const;  // of the ids as stored: "uint16" or "int32"
  int64_t document_begin(
      int64_t document) const;               // token offset in the file; num_documents() gives num_tokens()
  int64_t document_of(int64_t token) const;  // the document that holds this token
  // Ids [begin, begin + out.size()) of the file, as stored: see check_ids.
  void read(int64_t begin, std::span<int64_t> out) const;
  // InputError naming .bin, position, id and vocabulary when one of ids, read at begin, is not in [0,
  // vocab_size).
  void check_ids(int64_t begin, std::span<const int64_t> ids, int64_t vocab_size) const;

 private:
  struct Files;
  std::unique_ptr<Files> files_;
};

// How far an IndexedDatasetWriter is.
struct IndexedSizes {
  int64_t documents = 0, tokens = 0;
  int64_t largest_id = -1;       // -1: no token
  int64_t longest_document = 0;  // tokens
  uint64_t bin_bytes = 0;
  uint64_t idx_bytes() const;        // that are written before complete()
  uint64_t whole_idx_bytes() const;  // afterwards
};

// Streams documents out in constant memory; nothing stands under the final names before finish().
class IndexedDatasetWriter {
 public:
  // uint16 ids when vocab_size <= 65536, else int32.
  IndexedDatasetWriter(const std::filesystem::path& prefix, int64_t vocab_size);
  // Writes under the prefix `aside`, in a folder of the same file system, and leaves what is there when it is
  // destroyed before finish(). Goes on with what a writer of the same vocabulary had synced there. RunError
  // when the files are shorter than that.
  IndexedDatasetWriter(const std::filesystem::path& prefix, int64_t vocab_size,
                       const std::filesystem::path& aside, const IndexedSizes& from);
  ~IndexedDatasetWriter();
  // A document in pieces of any size. InputError: an id outside the vocabulary, more than 2^31 - 1 ids.
  void append(std::span<const int32_t> ids);
  void end_document();
  void add_document(std::span<const int32_t> ids);  // append and end_document
  // Between documents: everything so far outlives a crash.
  void sync();
  // Writes what is missing; both files then outlive a crash, under the names that they have until finish().
  // Whatever can fail for want of room has not failed then. InputError when there is no document.
  void complete();
  // complete(), then replaces what stood under the names before: the old .idx goes first and the new one
  // comes last, so that the names never hold a pair that does not belong together.
  void finish();
  const IndexedSizes& sizes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsv3
