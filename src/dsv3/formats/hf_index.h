#pragma once
// model.safetensors.index.json: which shard of a Hugging Face folder holds which tensor.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dsv3 {

struct HfIndex {
  struct Entry {
    std::string tensor;
    uint32_t shard;  // into shards
  };
  std::vector<std::string> shards;  // file names in the order of their first use
  std::vector<Entry> entries;       // by tensor name, no name twice
  std::optional<uint64_t> total_size;
};

// InputError{path, tensor or key, why}: a shard that is no plain file name (folders, absolute paths and `..`
// are none), more than 10,000 shards, a tensor twice, an empty name or one with control characters, a
// total_size that is negative or no integer. Other keys are carried by some writers and skipped.
HfIndex read_hf_index(const std::filesystem::path& path);

}  // namespace dsv3
