#pragma once
// ZIP archives written field by field, for what no archiver writes.

#include <span>
#include <string>
#include <vector>

#include "dsv3/formats/zip.h"
#include "dsv3/formats/zip_format.h"

namespace dsv3::test {

template <class T>
std::string raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

struct ArchiveRecord {
  std::string name, data;
};

// What a test changes before the archive is written.
struct Archive {
  struct Part {
    std::string name, data, local_extra, central_extra, descriptor;
    zip::LocalHeader local;
    zip::CentralHeader central;
  };
  std::vector<Part> parts;
  std::string before_directory, after_directory;
  zip::End end;  // counts, sizes and offsets are added by bytes()

  explicit Archive(const std::vector<ArchiveRecord>& records) {
    uint32_t at = 0;
    for (const auto& [name, data] : records) {
      Part part{name, data, {}, {}, {}, {}, {}};
      part.local.crc = crc32_of(std::as_bytes(std::span(data)));
      part.local.size = part.local.stored_size = static_cast<uint32_t>(data.size());
      part.local.name_size = static_cast<uint16_t>(name.size());
      part.central.crc = part.local.crc;
      part.central.size = part.central.stored_size = part.local.size;
      part.central.name_size = part.local.name_size;
      part.central.local_offset = at;
      at += static_cast<uint32_t>(sizeof part.local + name.size() + data.size());
      parts.push_back(part);
    }
  }

  std::string bytes() const {
    std::string out, directory;
    for (const Part& part : parts) {
      out += raw(part.local) + part.name + part.local_extra + part.data + part.descriptor;
      directory += raw(part.central) + part.name + part.central_extra;
    }
    out += before_directory;
    zip::End last = end;
    last.entries = last.entries_here = static_cast<uint16_t>(last.entries + parts.size());
    last.directory_offset += static_cast<uint32_t>(out.size());
    last.directory_size += static_cast<uint32_t>(directory.size() + after_directory.size());
    return out + directory + after_directory + raw(last);
  }
};

}  // namespace dsv3::test
