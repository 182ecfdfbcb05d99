#pragma once
// The tensors of a Hugging Face folder by name, whichever file holds them; no model behind it.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/formats/safetensors.h"

namespace dsv3 {

class HfWeights {
 public:
  struct Tensor {
    const SafetensorsFile* file;
    const TensorInfo* info;
  };

  // Opens model.safetensors, else the shards of model.safetensors.index.json. UsageError when there is no
  // such folder. InputError: neither file is there (a pickle is refused by name), a shard leads out of the
  // folder (links into the blobs of a Hugging Face cache are followed), index and shards disagree, total_size
  // is not the sum of the tensors.
  explicit HfWeights(const std::filesystem::path& folder);

  // The index, or the only file: where errors about the set of tensors point.
  const std::string& file() const { return file_; }
  const std::map<std::string_view, Tensor>& tensors() const { return tensors_; }
  const Tensor* find(std::string_view name) const;  // nullptr when absent

  // What keeps read() from making numbers of it: {the tensor to blame, "is missing" or what is wrong}.
  // Nothing when it can be read.
  struct Problem {
    std::string tensor, what;
  };
  std::optional<Problem> problem_with(const Tensor& tensor) const;
  // Whether a tensor of this name is the scales of an F8_E4M3 tensor.
  bool is_scale(std::string_view name) const;

  // Elements [begin, begin + out.size()) of a tensor of F64, F32, F16, BF16, or F8_E4M3 with its scales
  // (convert/fp8.h), which are multiplied in; InputError otherwise. Read in pieces of 1 MiB.
  void read(const Tensor& tensor, int64_t begin, std::span<float> out) const;
  void read(const Tensor& tensor, int64_t begin, std::span<double> out) const;

 private:
  void open_shards(const std::filesystem::path& folder);
  void add(const SafetensorsFile& file);
  template <class T>
  void read_pieces(const Tensor& tensor, int64_t begin, std::span<T> out) const;

  std::string file_;
  std::vector<SafetensorsFile> files_;  // tensors_ points into it
  std::map<std::string_view, Tensor> tensors_;
};

}  // namespace dsv3
