#pragma once
// ZIP archives of stored (uncompressed) records, as torch.save writes them, with ZIP64.
// Source: PKWARE's APPNOTE 6.3.
//
// Stricter than the format: the records, the central directory and one end-of-directory record without
// comment cover the archive without holes, so no second reading of it is possible.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/file.h"

namespace dsv3 {

struct ZipEntry {
  std::string name;
  uint64_t begin = 0, size = 0;  // bytes of the file
  uint32_t crc = 0;
};

class StoredZip {
 public:
  // The archive in bytes [offset, offset + length) of file, which must outlive this. InputError{file, "FIELD
  // zip…" or the record's name, why} on: a range outside the file, compression, encryption, several disks,
  // local headers that differ from the central directory, records that overlap or leave a hole, a name twice,
  // names that cannot be printed. The data is not read.
  StoredZip(const InputFile& file, uint64_t offset, uint64_t length, std::string_view field = {});

  const std::vector<ZipEntry>& entries() const { return entries_; }  // by place in the file
  const ZipEntry* find(std::string_view name) const;                 // nullptr when absent
  // Reads the data in pieces; InputError when it differs from the CRC.
  void check(const ZipEntry& entry) const;
  // The data, its CRC checked; InputError when it is larger than max_bytes.
  std::string read(const ZipEntry& entry, uint64_t max_bytes) const;

 private:
  [[noreturn]] void fail(const ZipEntry& entry, std::string_view why, std::string_view hint = {}) const;
  void expect_crc(const ZipEntry& entry, uint32_t crc) const;

  const InputFile& file_;
  std::string field_;
  std::vector<ZipEntry> entries_;
};

// CRC-32 (of ZIP) of bytes that follow bytes of that CRC.
uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t crc = 0);
// CRC-32 of bytes [begin, begin + size) of file, read in pieces.
uint32_t file_crc32(const InputFile& file, uint64_t begin, uint64_t size);

}  // namespace dsv3
