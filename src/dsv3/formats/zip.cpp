#include "dsv3/formats/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/formats/safetensors_header.h"
#include "dsv3/formats/utf8.h"
#include "dsv3/formats/zip_format.h"

namespace dsv3 {
namespace {

using namespace zip;

constexpr uint64_t kMaxDirectory = 4u << 20;  // 60,000 records; an item of a checkpoint has seven
constexpr size_t kPiece = 1u << 20;

struct Record {
  ZipEntry entry;
  uint16_t flags = 0;
  uint64_t local = 0;  // of the local header, within the archive
};

// Takes structures and texts off the front of a piece of the archive.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : bytes_(bytes) {}
  template <class T>
  std::optional<T> take() {
    if (bytes_.size() < sizeof(T)) return std::nullopt;
    T out;
    std::memcpy(&out, bytes_.data(), sizeof(T));
    bytes_.remove_prefix(sizeof(T));
    return out;
  }
  std::optional<std::string_view> text(size_t size) {
    if (bytes_.size() < size) return std::nullopt;
    const std::string_view out = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return out;
  }
  bool empty() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

class ZipParser {
 public:
  ZipParser(const InputFile& file, uint64_t offset, uint64_t length, std::string_view field)
      : file_(file), offset_(offset), length_(length), field_(field) {}

  std::vector<ZipEntry> parse() {
    if (const auto end = checked_add(offset_, length_); !end || *end > file_.size()) {
      fail("zip", fmt::format("bytes {} + {} of a file of {} bytes", offset_, length_, file_.size()));
    }
    read_end();
    read_directory();
    std::ranges::sort(records_, {}, &Record::local);
    uint64_t at = 0;
    std::vector<ZipEntry> entries;
    for (Record& record : records_) {
      at = check_local(record, at);
      entries.push_back(std::move(record.entry));
    }
    if (at != directory_) {
      fail("zip directory", fmt::format("begins at {}, the records end at {}", directory_, at));
    }
    return entries;
  }

 private:
  [[noreturn]] void fail(std::string_view what, std::string_view why, std::string_view hint = {}) const {
    throw InputError(file_.path(), fmt::format("{}{}{}", field_, field_.empty() ? "" : " ", what), why, hint);
  }

  template <class T>
  T read_at(uint64_t at) const {
    T out;
    file_.read(std::as_writable_bytes(std::span(&out, 1)), offset_ + at);
    return out;
  }

  // Sets directory_, directory_size_ and num_entries_; the directory ends where the end records begin.
  void read_end() {
    if (length_ < sizeof(End)) fail("zip", fmt::format("{} bytes are no archive", length_));
    uint64_t ends_at = length_ - sizeof(End);
    const auto end = read_at<End>(ends_at);
    if (end.signature != End::kSignature || end.comment_size != 0) {
      fail("zip end", "no end-of-directory record at the end of the archive");
    }
    directory_ = end.directory_offset;
    directory_size_ = end.directory_size;
    num_entries_ = end.entries;
    bool disks = end.disk != 0 || end.directory_disk != 0 || end.entries_here != end.entries;
    if (ends_at >= sizeof(Locator64)) {
      const uint64_t locator_at = ends_at - sizeof(Locator64);
      const auto locator = read_at<Locator64>(locator_at);
      if (locator.signature == Locator64::kSignature) {
        if (locator_at < sizeof(End64) || locator.end64_offset != locator_at - sizeof(End64)) {
          fail("zip end",
               fmt::format("the ZIP64 end record is said to be at {}, not right before its locator",
                           locator.end64_offset));
        }
        ends_at = locator.end64_offset;
        const auto end64 = read_at<End64>(ends_at);
        if (end64.signature != End64::kSignature || end64.rest_size != sizeof(End64) - 12) {
          fail("zip end", "no ZIP64 end record before its locator");
        }
        const auto agree = [](auto narrow, uint64_t wide) {
          return narrow == wide || narrow == static_cast<decltype(narrow)>(~0ull);
        };
        if (!agree(end.entries, end64.entries) || !agree(end.directory_size, end64.directory_size) ||
            !agree(end.directory_offset, end64.directory_offset)) {
          fail("zip end", "the two end records differ");
        }
        directory_ = end64.directory_offset;
        directory_size_ = end64.directory_size;
        num_entries_ = end64.entries;
        disks |= end64.disk != 0 || end64.directory_disk != 0 || end64.entries_here != end64.entries ||
                 locator.disk != 0 || locator.num_disks > 1;
      }
    }
    if (disks) fail("zip end", "an archive on several disks");
    if (directory_ > ends_at || directory_size_ != ends_at - directory_) {
      fail("zip end", fmt::format("directory of {} bytes at {}, the end records begin at {}", directory_size_,
                                  directory_, ends_at));
    }
    if (directory_size_ > kMaxDirectory) {
      fail("zip end",
           fmt::format("directory of {} bytes, at most {} expected", directory_size_, kMaxDirectory));
    }
  }

  void read_directory() {
    std::string bytes(directory_size_, '\0');
    file_.read(std::as_writable_bytes(std::span(bytes)), offset_ + directory_);
    Fields fields(bytes);
    while (!fields.empty()) {
      const auto header = fields.take<CentralHeader>();
      if (!header || header->signature != CentralHeader::kSignature) {
        fail("zip directory", fmt::format("entry {} is none", records_.size()));
      }
      const auto name = fields.text(header->name_size), extra = fields.text(header->extra_size),
                 comment = fields.text(header->comment_size);
      if (!name || !extra || !comment) {
        fail("zip directory", fmt::format("entry {} is cut", records_.size()));
      }
      records_.push_back(central_entry(*header, *name, *extra));
    }
    if (records_.size() != num_entries_) {
      fail("zip directory", fmt::format("{} entries, the end record says {}", records_.size(), num_entries_));
    }
  }

  Record central_entry(const CentralHeader& header, std::string_view name, std::string_view extra) const {
    if (!is_plain_name(name) || !is_utf8(name)) {
      fail("zip directory", fmt::format("entry {}: a name that cannot be printed", records_.size()));
    }
    if (header.method != kStored) {
      fail(name, fmt::format("compressed by method {}, expected stored", header.method));
    }
    if (header.flags & 1) fail(name, "is encrypted");
    if (header.flags & ~(kFlagDescriptor | kFlagUtf8)) {
      fail(name, fmt::format("flags 0x{:04x} are not supported", header.flags));
    }
    if (header.disk != 0) fail(name, "lies on another disk");
    uint64_t size = header.size, stored = header.stored_size, local = header.local_offset;
    const bool wanted = size == kSee64 || stored == kSee64 || local == kSee64;
    for (Fields fields(extra); wanted && !fields.empty();) {
      const auto field = fields.take<ExtraHeader>();
      const auto content = field ? fields.text(field->size) : std::nullopt;
      if (!content) fail(name, "a broken extra field");
      if (field->id != kExtraZip64) continue;
      Fields values(*content);
      for (uint64_t* value : {&size, &stored, &local}) {
        if (*value == kSee64) *value = values.take<uint64_t>().value_or(kSee64);
      }
      break;
    }
    if (size != stored) fail(name, fmt::format("stored as {} bytes, but of {} bytes", stored, size));
    if (local >= directory_ || size > directory_ - local) {
      fail(name, fmt::format("{} bytes at {}, the directory begins at {}", size, local, directory_));
    }
    return {{std::string(name), 0, size, header.crc}, header.flags, local};
  }

  // Compares the record's local header with its central one; sets where its data begins. Returns the end.
  uint64_t check_local(Record& record, uint64_t expected) const {
    ZipEntry& entry = record.entry;
    if (record.local != expected) {
      fail(entry.name, fmt::format("begins at {}, the record before ends at {}", record.local, expected));
    }
    if (directory_ - record.local < sizeof(LocalHeader)) fail(entry.name, "its local header is cut");
    const auto header = read_at<LocalHeader>(record.local);
    if (header.signature != LocalHeader::kSignature || header.flags != record.flags ||
        header.method != kStored || header.name_size != entry.name.size()) {
      fail(entry.name, "its local header differs from the directory");
    }
    const uint64_t begin = record.local + sizeof header + header.name_size + header.extra_size;
    if (begin > directory_ || entry.size > directory_ - begin) {
      fail(entry.name,
           fmt::format("{} bytes at {}, the directory begins at {}", entry.size, begin, directory_));
    }
    std::string rest(begin - record.local - sizeof header, '\0');
    file_.read(std::as_writable_bytes(std::span(rest)), offset_ + record.local + sizeof header);
    if (!rest.starts_with(entry.name)) fail(entry.name, "its local header has another name");
    const bool described = record.flags & kFlagDescriptor;
    const bool blank = header.crc == 0 && header.size == 0 && header.stored_size == 0;
    if (!(described && blank) && !local_sizes_agree(header, rest.substr(entry.name.size()), entry)) {
      fail(entry.name, "its local header differs from the directory");
    }
    entry.begin = offset_ + begin;
    const uint64_t end = begin + entry.size;
    return described ? check_descriptor(entry, end) : end;
  }

  static bool local_sizes_agree(const LocalHeader& header, std::string_view extra, const ZipEntry& entry) {
    uint64_t size = header.size, stored = header.stored_size;
    for (Fields fields(extra); size == kSee64 || stored == kSee64;) {
      const auto field = fields.take<ExtraHeader>();
      const auto content = field ? fields.text(field->size) : std::nullopt;
      if (!content) return false;
      if (field->id != kExtraZip64) continue;
      Fields values(*content);
      if (size == kSee64) size = values.take<uint64_t>().value_or(0);
      if (stored == kSee64) stored = values.take<uint64_t>().value_or(0);
      break;
    }
    return size == entry.size && stored == entry.size && header.crc == entry.crc;
  }

  // The descriptor at `at` has sizes of 4 or of 8 bytes; nothing says which but its content.
  uint64_t check_descriptor(const ZipEntry& entry, uint64_t at) const {
    const auto agrees = [&](const auto& found) {
      return found.signature == found.kSignature && found.crc == entry.crc && found.size == entry.size &&
             found.stored_size == entry.size;
    };
    if (directory_ - at >= sizeof(Descriptor<uint64_t>) && agrees(read_at<Descriptor<uint64_t>>(at))) {
      return at + sizeof(Descriptor<uint64_t>);
    }
    if (directory_ - at >= sizeof(Descriptor<uint32_t>) && agrees(read_at<Descriptor<uint32_t>>(at))) {
      return at + sizeof(Descriptor<uint32_t>);
    }
    fail(entry.name, "its data descriptor differs from the directory");
  }

  const InputFile& file_;
  uint64_t offset_, length_;
  std::string_view field_;
  uint64_t directory_ = 0, directory_size_ = 0, num_entries_ = 0;
  std::vector<Record> records_;
};

}  // namespace

StoredZip::StoredZip(const InputFile& file, uint64_t offset, uint64_t length, std::string_view field)
    : file_(file), field_(field), entries_(ZipParser(file, offset, length, field).parse()) {
  std::vector<const ZipEntry*> by_name;
  for (const ZipEntry& entry : entries_) by_name.push_back(&entry);
  std::ranges::sort(by_name, {}, &ZipEntry::name);
  const auto twin = std::ranges::adjacent_find(by_name, {}, &ZipEntry::name);
  if (twin != by_name.end()) fail(**twin, "two records of that name");
}

const ZipEntry* StoredZip::find(std::string_view name) const {
  const auto it = std::ranges::find(entries_, name, &ZipEntry::name);
  return it == entries_.end() ? nullptr : &*it;
}

uint32_t file_crc32(const InputFile& file, uint64_t begin, uint64_t size) {
  std::vector<std::byte> piece(std::min<uint64_t>(size, kPiece));
  uint32_t crc = 0;
  while (size > 0) {
    const auto now = std::span(piece).first(std::min<uint64_t>(size, kPiece));
    file.read(now, begin);
    crc = crc32_of(now, crc);
    begin += now.size();
    size -= now.size();
  }
  return crc;
}

uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t crc) {
  return static_cast<uint32_t>(::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void StoredZip::expect_crc(const ZipEntry& entry, uint32_t crc) const {
  if (crc == entry.crc) return;
  fail(entry, fmt::format("CRC 0x{:08x} of its bytes, expected 0x{:08x}", crc, entry.crc),
       "the file is damaged");
}

void StoredZip::check(const ZipEntry& entry) const {
  expect_crc(entry, file_crc32(file_, entry.begin, entry.size));
}

std::string StoredZip::read(const ZipEntry& entry, uint64_t max_bytes) const {
  if (entry.size > max_bytes) {
    fail(entry, fmt::format("{} bytes, at most {} expected", entry.size, max_bytes));
  }
  std::string out(entry.size, '\0');
  const auto bytes = std::as_writable_bytes(std::span(out));
  file_.read(bytes, entry.begin);
  expect_crc(entry, crc32_of(bytes));
  return out;
}

void StoredZip::fail(const ZipEntry& entry, std::string_view why, std::string_view hint) const {
  throw InputError(file_.path(), fmt::format("{}{}{}", field_, field_.empty() ? "" : " ", entry.name), why,
                   hint);
}

}  // namespace dsv3
