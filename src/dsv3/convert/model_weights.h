#pragma once
// The parameters of a model in a folder of either format, checked against the table.

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "dsv3/config/param_table.h"
#include "dsv3/convert/tensor_store.h"

namespace dsv3 {

// What stands before the model's own names in a store's keys ("model." in a DCP folder of {"model": …}), told
// by the embedding; empty when there is none. Of several embeddings the one without a prefix, else that of
// "model."; InputError naming two of them when neither is there: {"ema": …, "student": …}.
std::string model_prefix(const TensorStore& store);

class ModelWeights {
 public:
  // Opens the folder as what it is: a DCP folder (`.metadata`), else a Hugging Face folder.
  //   - A parameter is stored whole under its own name (DCP), or as its Hugging Face tensors. Keys of a DCP
  //     folder may have a common prefix (model_prefix()); what is none of the model's (optimizer state) is
  //     not looked at.
  //   - Every missing, unexpected or wrong-shaped tensor is listed in one InputError (first 20, then a
  //   count).
  //   - Ignored: rotary_emb.inv_freq, and MTP layers beyond num_nextn_predict_layers.
  //   - An MTP module none of whose own tensors is present is left out and reported by missing_mtp(); partly
  //     present, or followed by a later one that is present, is an InputError.
  //   - Repeats of a shared tensor (an MTP layer's embed_tokens or shared_head.head; lm_head with tied
  //     embeddings) must equal it.
  // compare_copies = false: the repeats are not read.
  ModelWeights(const std::filesystem::path& folder, const ModelConfig& config, bool compare_copies = true);
  // The same of any store. only_model: every tensor must be one of the model's.
  ModelWeights(std::unique_ptr<TensorStore> store, const ModelConfig& config, bool only_model,
               bool compare_copies = true);

  const std::string& file() const { return store_->file(); }  // TensorStore's
  // MTP depths k (1 …) that the weights lack, ascending.
  const std::vector<int64_t>& missing_mtp() const { return missing_mtp_; }
  // As stored, FP8 as BF16, which it becomes when it is read; where a parameter's tensors differ, F32. bf16
  // when the weights lack it.
  DType dtype(const ParamSpec& spec) const { return common_dtype(spec, /*fp8_as_bf16=*/true); }
  // The same without FP8 as BF16.
  DType stored_dtype(const ParamSpec& spec) const { return common_dtype(spec, /*fp8_as_bf16=*/false); }
  // Whether all of it is there: it is not of an MTP module that is left out.
  bool has(const ParamSpec& spec) const;
  // InputError when a repeat of a shared tensor differs from it.
  void check_copies(const ModelConfig& config) const;
  // Elements [begin, begin + out.size()) of a parameter of the table, in pieces of 1 MiB. InputError when the
  // weights lack it (missing_mtp()). Safe from several threads.
  void read(const ParamSpec& spec, int64_t begin, std::span<float> out) const;
  void read(const ParamSpec& spec, int64_t begin, std::span<double> out) const;
  // The same in `dtype` (F64, F32, F16, BF16): copied where it is stored so, else rounded to nearest.
  // InputError: a finite value that F16 would make infinite.
  void read_bytes(const ParamSpec& spec, int64_t begin, DType dtype, std::span<std::byte> out) const;
  // Codes and scales as they are stored (convert/fp8.h) of whole rows of blocks of one tensor in F8_E4M3:
  // elements from the first of a row of blocks on. False where they are stored otherwise: nothing is read.
  bool read_fp8(const ParamSpec& spec, int64_t begin, std::span<std::byte> codes,
                std::span<float> scales) const;

 private:
  // A stored tensor and the elements of the parameter that it holds.
  struct Source {
    std::string name;
    const StoredTensor* tensor;  // nullptr when absent
    std::vector<int64_t> shape;  // expected
    int64_t begin, end;
  };
  std::vector<Source> find_sources(const ParamSpec& spec) const;
  template <class Fn>
  void for_each_source(const ParamSpec& spec, int64_t begin, int64_t end, Fn fn) const;
  DType common_dtype(const ParamSpec& spec, bool fp8_as_bf16) const;
  const StoredTensor* find(std::string_view name) const;
  bool is_ignored(std::string_view name, const ModelConfig& config) const;
  const std::vector<Source>& sources_of(const ParamSpec& spec) const { return sources_.at(spec.name); }
  void check_names(const ParamTable& table, const ModelConfig& config) const;
  bool is_equal(const StoredTensor& a, const StoredTensor& b) const;

  std::unique_ptr<TensorStore> store_;
  std::string prefix_;                                            // of every key
  std::unordered_map<std::string, std::vector<Source>> sources_;  // of every parameter, ascending
  bool only_model_;  // every tensor belongs to the model: none may be unknown
  std::vector<int64_t> missing_mtp_;
};

}  // namespace dsv3
