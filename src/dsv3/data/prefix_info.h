#pragma once
// PREFIX.json, which `dsv3 prepare` writes beside token files.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "dsv3/config/run_config.h"

namespace dsv3 {

// What it says and others need; token files of other programs may have none, or one without a key.
struct PrefixInfo {
  std::optional<std::string> tokenizer, tokenizer_hash;  // Tokenizer::name() and hash()
  std::optional<int64_t> eos_id, largest_id, bytes, tokens;
};

// Nothing but nothings when there is no such file, or one of somebody else, which is no JSON object.
// InputError: it is no JSON, or a key is of another type.
PrefixInfo read_prefix_info(const std::filesystem::path& prefix);

// Ids mean the same in all files of data.train and data.valid, and in data.tokenizer if one is named: where
// PREFIX.json says a tokenizer_hash, it is the same. InputError naming both, or what tokenizer_hash() throws.
void require_one_tokenizer(const DataConfig& data);
// The hash of the tokenizer that a run's ids are of: of data.tokenizer, else of the first PREFIX.json of
// data.train that says one; empty when nobody does.
std::string hash_of_ids(const DataConfig& data);
// What a person should hear when training files were made with a tokenizer.json and data.tokenizer names
// none, so that no checkpoint and no hf/ has one; else empty.
std::string unnamed_tokenizer(const DataConfig& data);

}  // namespace dsv3
