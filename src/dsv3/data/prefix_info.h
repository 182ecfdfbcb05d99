#pragma once
// PREFIX.json, which `dsv3 prepare` writes beside token files.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace dsv3 {

// What it says and others need; token files of other programs may have none, or one without a key.
struct PrefixInfo {
  std::optional<std::string> tokenizer_hash;  // Tokenizer::hash()
  std::optional<int64_t> eos_id, largest_id, bytes, tokens;
};

// Nothing but nothings when there is no such file, or one of somebody else, which is no JSON object.
// InputError: it is no JSON, or a key is of another type.
PrefixInfo read_prefix_info(const std::filesystem::path& prefix);

}  // namespace dsv3
