#pragma once
// The records of a ZIP archive, little-endian and packed. Source: PKWARE's APPNOTE 6.3, section 4.3.

#include <bit>
#include <cstdint>

namespace dsv3::zip {

static_assert(std::endian::native == std::endian::little, "headers are read and written as they stand");

constexpr uint16_t kFlagDescriptor = 1 << 3;  // CRC and sizes follow the data
constexpr uint16_t kFlagUtf8 = 1 << 11;
constexpr uint16_t kStored = 0;
constexpr uint16_t kExtraZip64 = 1;
constexpr uint16_t kExtraPadding = 0x4246;  // "FB", as torch.save pads
// In place of a value that stands in a ZIP64 field.
constexpr uint16_t kSee64Short = 0xffff;
constexpr uint32_t kSee64 = 0xffffffff;

#pragma pack(push, 1)
struct LocalHeader {  // then name and extra
  static constexpr uint32_t kSignature = 0x04034b50;
  uint32_t signature = kSignature;
  uint16_t version = 0, flags = 0, method = kStored;
  uint32_t time_and_date = 0;
  uint32_t crc = 0, stored_size = 0, size = 0;
  uint16_t name_size = 0, extra_size = 0;
};
struct CentralHeader {  // then name, extra and comment
  static constexpr uint32_t kSignature = 0x02014b50;
  uint32_t signature = kSignature;
  uint16_t made_by = 0, version = 0, flags = 0, method = kStored;
  uint32_t time_and_date = 0;
  uint32_t crc = 0, stored_size = 0, size = 0;
  uint16_t name_size = 0, extra_size = 0, comment_size = 0, disk = 0, internal_attributes = 0;
  uint32_t external_attributes = 0, local_offset = 0;
};
template <class Size>
struct Descriptor {  // uint32_t or, under ZIP64, uint64_t sizes
  static constexpr uint32_t kSignature = 0x08074b50;
  uint32_t signature = kSignature, crc = 0;
  Size stored_size = 0, size = 0;
};
struct End64 {
  static constexpr uint32_t kSignature = 0x06064b50;
  uint32_t signature = kSignature;
  uint64_t rest_size = 44;  // of this record, after this field
  uint16_t made_by = 45, version = 45;
  uint32_t disk = 0, directory_disk = 0;
  uint64_t entries_here = 0, entries = 0, directory_size = 0, directory_offset = 0;
};
struct Locator64 {
  static constexpr uint32_t kSignature = 0x07064b50;
  uint32_t signature = kSignature, disk = 0;
  uint64_t end64_offset = 0;
  uint32_t num_disks = 1;
};
struct End {
  static constexpr uint32_t kSignature = 0x06054b50;
  uint32_t signature = kSignature;
  uint16_t disk = 0, directory_disk = 0, entries_here = 0, entries = 0;
  uint32_t directory_size = 0, directory_offset = 0;
  uint16_t comment_size = 0;
};
struct ExtraHeader {  // of each field in an extra area
  uint16_t id = 0, size = 0;
};
#pragma pack(pop)
static_assert(sizeof(LocalHeader) == 30 && sizeof(CentralHeader) == 46 && sizeof(End64) == 56 &&
              sizeof(Locator64) == 20 && sizeof(End) == 22 && sizeof(Descriptor<uint32_t>) == 16 &&
              sizeof(Descriptor<uint64_t>) == 24);

}  // namespace dsv3::zip
