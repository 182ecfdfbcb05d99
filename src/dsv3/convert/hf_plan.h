#pragma once
// What a Hugging Face folder of a model holds: its tensors, cut into shards, their index, config.json.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "dsv3/base/json.h"
#include "dsv3/config/param_table.h"
#include "dsv3/formats/safetensors.h"

namespace dsv3 {

// One tensor on disk and where its values come from. An FP8 one has its scales beside it, in the same file.
struct HfItem {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  const ParamSpec* spec;
  int64_t offset;  // elements into the parameter

  int64_t numel() const;
  bool is_fp8() const { return dtype == DType::f8_e4m3; }
  std::vector<int64_t> scale_shape() const;
  uint64_t scale_bytes() const;
  uint64_t bytes() const;  // scales included
};

// Whether an FP8 folder holds it in FP8: the projections of attention, FFN and experts. Embeddings, lm_head,
// norms, router, biases and eh_proj stay BF16. Source: the released model.safetensors.index.json (45,808
// scales).
bool is_fp8_weight(const ParamSpec& spec);
// What a parameter is stored as in a folder of `dtype`: the router's correction bias is always F32.
DType hf_stored_dtype(const ParamSpec& spec, DType dtype);

struct HfShard {
  std::string name;  // model.safetensors, or model-00001-of-00003.safetensors
  std::vector<HfItem> items;

  // In the order of the file: the scales of FP8 items first, so that they are aligned, then the items.
  std::vector<SafetensorsWriter::Entry> entries() const;
  uint64_t scale_bytes() const;
};

// Every tensor of the model, MTP layers with the shared ones repeated as published, in consecutive shards of
// at most max_bytes (a larger tensor has one of its own). table outlives the result.
std::vector<HfShard> plan_hf_folder(const ParamTable& table, const ModelConfig& config,
                                    const std::function<DType(const ParamSpec&)>& dtype_of,
                                    uint64_t max_bytes);

// model.safetensors.index.json; nothing to write for one shard.
std::string hf_index_text(const std::vector<HfShard>& shards);
// config.json of weights of this dtype. Of FP8 it keeps what config.source says of its scales (scale_fmt).
Json hf_config_json(const ModelConfig& config, DType dtype);

}  // namespace dsv3
