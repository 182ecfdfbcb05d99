#pragma once
// A small model's Hugging Face folder that tests take apart and put together again.

#include <map>
#include <string>
#include <vector>

#include "dsv3/base/philox.h"
#include "dsv3/config/param_table.h"
#include "dsv3/formats/safetensors.h"
#include "support/files.h"

namespace dsv3::test {

struct SmallModel {
  int64_t mtp = 1;
  bool tied = false;
};

inline ModelConfig small_config(const SmallModel& model = {}) {
  ModelConfig config;
  config.vocab_size = 24;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.moe_intermediate_size = 6;
  config.num_hidden_layers = 2;
  config.num_nextn_predict_layers = model.mtp;
  config.num_attention_heads = 2;
  config.n_routed_experts = 4;
  config.n_group = 2;
  config.topk_group = 1;
  config.num_experts_per_tok = 2;
  config.q_lora_rank = 4;
  config.kv_lora_rank = 4;
  config.qk_nope_head_dim = 4;
  config.qk_rope_head_dim = 2;
  config.v_head_dim = 4;
  config.first_k_dense_replace = 1;
  config.tie_word_embeddings = model.tied;
  return config;
}

// A value that tells the parameter and the element.
inline void small_source(const ParamSpec& spec, int64_t begin, std::span<float> out) {
  philox_normal(out, 1.0, 1, hash_name(spec.name), static_cast<uint64_t>(begin));
}

struct StoredTensor {
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

inline StoredTensors load_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  StoredTensors tensors;
  for (const TensorInfo& info : file.tensors()) {
    std::vector<std::byte> bytes(info.end - info.begin);
    file.read(info, bytes);
    tensors[info.name] = {info.dtype, info.shape, std::move(bytes)};
  }
  return tensors;
}

// One file; every tensor of a small model is a multiple of four bytes, so any order is aligned.
inline void save_tensors(const std::filesystem::path& path, const StoredTensors& tensors) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(path, entries);
  for (const auto& [name, tensor] : tensors) writer.write(tensor.bytes);
  writer.finish();
}

}  // namespace dsv3::test
