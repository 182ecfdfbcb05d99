#pragma once
// The JSON header of a safetensors file: parsed as a stream of events, straight into TensorInfo.

#include <map>
#include <string>
#include <vector>

#include "dsv3/base/file.h"
#include "dsv3/formats/safetensors.h"

namespace dsv3 {

struct SafetensorsHeader {
  std::vector<TensorInfo>
      tensors;  // in the header's order; each one fits the data section, numel matches its bytes
  std::map<std::string, std::string> metadata;
};

// Parses bytes [8, 8 + length) of file; data_size bytes follow them. Names may still repeat and ranges
// overlap where their sum is no larger than data_size.
SafetensorsHeader parse_safetensors_header(const InputFile& file, uint64_t length, uint64_t data_size);

// Whether a name from outside can be printed and looked up: not empty, no control characters.
bool is_plain_name(std::string_view name);

}  // namespace dsv3
