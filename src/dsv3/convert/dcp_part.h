#pragma once
// What some files of a checkpoint hold: the share of one rank or one process, as text on its way to the one
// that joins them.

#include <map>
#include <string>
#include <string_view>

#include "dsv3/convert/manifest.h"
#include "dsv3/formats/dcp_metadata.h"

namespace dsv3 {

struct DcpPart {
  DcpMetadata metadata;
  std::map<std::string, FileHashes> files;

  // std::logic_error when both wrote a file of one name.
  void add(DcpPart&& other);
  std::string text() const;  // JSON
  // InputError{file, …} for anything but what text() gives.
  static DcpPart parse(std::string_view text, std::string_view file);
};

// One tensor a key, with the chunks of all that have it; sorted. std::logic_error when they differ in dtype
// or shape.
DcpMetadata joined(DcpMetadata metadata);

}  // namespace dsv3
