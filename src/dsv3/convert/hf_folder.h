#pragma once
// A Hugging Face model folder: config.json, one model.safetensors or shards with
// model.safetensors.index.json.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "dsv3/config/param_table.h"
#include "dsv3/convert/hf_weights.h"
#include "dsv3/formats/safetensors.h"

namespace dsv3 {

class HfReader {
 public:
  // Opens the folder's weights (HfWeights) and checks them against the table: every missing, unexpected or
  // wrong-shaped tensor is listed in one InputError (first 20, then a count).
  //   - Ignored: rotary_emb.inv_freq, and MTP layers beyond num_nextn_predict_layers.
  //   - An MTP module none of whose own tensors is present is left out and reported by missing_mtp(); partly
  //   present,
  //     or followed by a later one that is present, is an InputError.
  //   - An F8_E4M3 matrix NAME.weight has its scales beside it (convert/fp8.h); scales without one are
  //   unexpected.
  //   - Repeats of a shared tensor (an MTP layer's embed_tokens or shared_head.head; lm_head with tied
  //   embeddings)
  //     must equal it.
  HfReader(const std::filesystem::path& folder, const ModelConfig& config);

  // MTP depths k (1 …) that the weights lack, ascending.
  const std::vector<int64_t>& missing_mtp() const { return missing_mtp_; }
  // Elements [begin, begin + out.size()) of a parameter of the table, read from its HF tensors of F64, F32,
  // F16, BF16 or F8_E4M3 (times its scales) in pieces of 1 MiB. InputError when the weights lack it
  // (missing_mtp()).
  void read(const ParamSpec& spec, int64_t begin, std::span<float> out) const;
  void read(const ParamSpec& spec, int64_t begin, std::span<double> out) const;

 private:
  HfWeights weights_;
  std::vector<int64_t> missing_mtp_;
};

// Gives elements [begin, begin + out.size()) of a parameter.
using ParamSource = std::function<void(const ParamSpec&, int64_t begin, std::span<float> out)>;

// Whether an FP8 folder holds it in FP8: the projections of attention, FFN and experts. Embeddings, lm_head,
// norms, router, biases and eh_proj stay BF16. Source: the released model.safetensors.index.json (45,808
// scales).
bool is_fp8_weight(const ParamSpec& spec);

struct HfWriteOptions {
  // bf16, f16, f32, or f8_e4m3: is_fp8_weight() in FP8 with its scales (convert/fp8.h), the others in bf16.
  // The router's correction bias is always f32.
  DType dtype = DType::bf16;
  uint64_t max_shard_bytes = 5ull << 30;
};
// Writes a folder that transformers loads: config.json, one model.safetensors or shards with their index. MTP
// layers repeat the shared tensors, as published. Written into a temporary folder beside `folder`, then
// renamed; UsageError when `folder` exists. source is asked for pieces of 1 MiB, from this thread, each
// element once; FP8 keeps 128 rows of a tensor in memory.
void write_hf_folder(const std::filesystem::path& folder, const ModelConfig& config,
                     const ParamSource& source, const HfWriteOptions& options = {});

}  // namespace dsv3
