#pragma once
// The tensors of a Hugging Face folder by name, whichever file holds them; no model behind it.

#include <filesystem>
#include <functional>
#include <map>
#include <vector>

#include "dsv3/convert/manifest.h"
#include "dsv3/convert/tensor_store.h"
#include "dsv3/formats/safetensors.h"

namespace dsv3 {

class HfWeights : public TensorStore {
 public:
  // Opens model.safetensors, else the shards of model.safetensors.index.json; or the one .safetensors file
  // that path is. UsageError when there is no such path. InputError: neither file is there (a pickle is
  // refused by name), a shard leads out of the folder (links into the blobs of a Hugging Face cache are
  // followed), index and shards disagree (the first 20 tensors, then a count), total_size is not the sum
  // of the tensors. Where the folder has a manifest.json every byte of the weights is checked before it is
  // used.
  explicit HfWeights(const std::filesystem::path& path);

  const std::string& file() const override { return file_; }
  void read_bytes(const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) const override;
  // F8_E4M3 matrices too: their scales (convert/fp8.h) are multiplied in.
  void read(const StoredTensor& tensor, int64_t begin, std::span<float> out) const override;
  void read(const StoredTensor& tensor, int64_t begin, std::span<double> out) const override;
  std::optional<Problem> problem_with(const StoredTensor& tensor) const override;
  // The scales of an F8_E4M3 matrix.
  bool is_companion(std::string_view name) const override;

 private:
  void open(const std::filesystem::path& folder, const std::string& name);
  void open_shards(const std::filesystem::path& folder);
  // A name that an earlier file has: the second tensor, and that file.
  using OnTwin = std::function<void(const TensorInfo&, const SafetensorsFile&)>;
  void add(const SafetensorsFile& file, const OnTwin& on_twin);
  template <class T>
  void read_fp8(const StoredTensor& tensor, int64_t begin, std::span<T> out) const;

  std::optional<Manifest> manifest_;  // files_ points into it
  std::string file_;
  std::vector<SafetensorsFile> files_;  // where_ points into it
  struct Where {
    const SafetensorsFile* file;
    const TensorInfo* info;
  };
  std::map<std::string_view, Where> where_;  // by name
};

}  // namespace dsv3
