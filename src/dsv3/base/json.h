#pragma once
// Small JSON from outside: nlohmann-json with the limits that hostile files need.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "dsv3/base/error.h"

namespace dsv3 {

using Json = nlohmann::ordered_json;

// Parses text; InputError names file and the byte or key on: invalid UTF-8, nesting deeper than max_depth,
// a duplicate key in one object, a number that is no finite double, trailing bytes.
Json parse_json(std::string_view text, std::string_view file, int max_depth = 64);
// path's text, parsed; InputError when it is larger than max_bytes.
Json read_json(const std::filesystem::path& path, uint64_t max_bytes = 64u << 20);

// For parsers of their own (nlohmann's SAX interface): its message, made short, as an InputError.
InputError json_error(std::string_view file, uint64_t byte, std::string_view what);

}  // namespace dsv3
