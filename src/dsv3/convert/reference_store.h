#pragma once
// A DCP folder that the reference's converter wrote, as the Hugging Face tensors that it was made from.
// Source: zigzagcai/DeepSeekV3, convert_ckpt_hf2dcp.py, of {"model": state}, so that keys begin with
// "model.":
//   - The experts of a layer are one matrix a projection, model.layers.N.mlp.experts.gate_proj.weight: their
//     [I, H] side by side as [I, E · H], then transposed: [E · H, I], stored with the strides of the
//     transpose. So up_proj; down_proj is [E · I, H] likewise.
//   - The MTP module after L layers, k = 0: enorm, hnorm and eh_proj under mtp.mtp_layers.k., all else of
//     model.layers.L. under mtp.mtp_layers.k.layer., its copies of the embedding and the head too.
//   - rotary_emb.inv_freq is dropped.

#include <filesystem>
#include <string>
#include <unordered_map>

#include "dsv3/config/model_config.h"
#include "dsv3/convert/dcp_folder.h"

namespace dsv3 {

class ReferenceStore : public TensorStore {
 public:
  // What DcpFolder's constructor throws; InputError for experts that are no [E · H, I] or [E · I, H], and for
  // a name that two tensors of the folder stand for. Tensors that are missing are not looked for.
  ReferenceStore(const std::filesystem::path& folder, const ModelConfig& config);

  const std::string& file() const override { return folder_.file(); }
  // Of an expert: gathered from its matrix, 1 MiB at a time beside out.
  void read_bytes(const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) const override;

 private:
  struct Origin {
    const StoredTensor* tensor;  // of folder_
    int64_t expert;              // of a matrix of all experts; else -1
  };
  void add(std::string name, const Origin& origin, std::vector<int64_t> shape);

  DcpFolder folder_;
  std::unordered_map<std::string, Origin> origins_;  // of every tensor, by its name here
};

}  // namespace dsv3
