#pragma once
// Writes Hugging Face model folders: config.json, one model.safetensors or shards with
// model.safetensors.index.json.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "dsv3/config/param_table.h"
#include "dsv3/convert/hf_plan.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/formats/dtype.h"

namespace dsv3 {

// Elements [begin, begin + count) of an item; of an FP8 one whole rows of blocks.
struct HfPiece {
  const HfItem* item;
  int64_t begin, count;
};
// A piece as it is stored.
struct HfBytes {
  std::vector<std::byte> bytes;
  std::vector<float> scales;  // of an FP8 one: ceil(cols / 128) for each row of blocks
};
// values: of the elements of the piece.
HfBytes encode_piece(const HfPiece& piece, std::span<const float> values);
// Writes one file of a plan in pieces of `elements`, more where a row of blocks has more. make() is called
// for each in order: up to `ahead` of them at a time on other threads, 0: on this one. written(bytes) after
// each.
FileHashes write_hf_shard(
    const std::filesystem::path& path, const HfShard& shard, int64_t elements, size_t ahead,
    const std::function<void(const HfPiece&, HfBytes& out)>& make,
    const std::function<void(uint64_t)>& written = [](uint64_t) {});

// Gives elements [begin, begin + out.size()) of a parameter.
using ParamSource = std::function<void(const ParamSpec&, int64_t begin, std::span<float> out)>;

struct HfWriteOptions {
  // bf16, f16, f32, or f8_e4m3: is_fp8_weight() in FP8 with its scales (convert/fp8.h), the others in bf16.
  // The router's correction bias is always f32.
  DType dtype = DType::bf16;
  uint64_t max_shard_bytes = 5ull << 30;
  std::filesystem::path tokenizer = {};  // data.tokenizer of a run, which goes along (convert/run_folder.h)
};
// Writes a folder that transformers loads: config.json, one model.safetensors or shards with their index. MTP
// layers repeat the shared tensors, as published. Written into a temporary folder beside `folder`, then
// renamed; UsageError when `folder` exists. source is asked for pieces of 1 MiB, from this thread, each
// element once; FP8 keeps 128 rows of a tensor in memory.
void write_hf_folder(const std::filesystem::path& folder, const ModelConfig& config,
                     const ParamSource& source, const HfWriteOptions& options = {});

}  // namespace dsv3
