#include "dsv3/convert/reference_store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <unordered_set>

#include "dsv3/base/error.h"
#include "dsv3/config/param_table.h"
#include "dsv3/convert/model_weights.h"
#include "dsv3/convert/problems.h"

namespace dsv3 {
namespace {

struct MtpPrefix {
  std::string reference, hf;
};

// "mtp.mtp_layers.k.layer." before "mtp.mtp_layers.k.", which it begins with.
std::vector<MtpPrefix> mtp_prefixes(const ModelConfig& config) {
  std::vector<MtpPrefix> out;
  for (int64_t k = 0; k < config.num_nextn_predict_layers; ++k) {
    const std::string hf = fmt::format("model.layers.{}.", config.num_hidden_layers + k);
    out.push_back({fmt::format("mtp.mtp_layers.{}.layer.", k), hf});
    out.push_back({fmt::format("mtp.mtp_layers.{}.", k), hf});
  }
  return out;
}

// The reference's name of what Hugging Face calls `module`, a part of a block.
std::string reference_module(const std::string& module, const std::vector<MtpPrefix>& mtp) {
  for (const MtpPrefix& prefix : mtp)
    if (module.starts_with(prefix.hf)) return prefix.reference + module.substr(prefix.hf.size());
  return module;
}

std::string hf_name(const std::string& name, const std::vector<MtpPrefix>& mtp) {
  for (const MtpPrefix& prefix : mtp)
    if (name.starts_with(prefix.reference)) return prefix.hf + name.substr(prefix.reference.size());
  return name;
}

}  // namespace

ReferenceStore::ReferenceStore(const std::filesystem::path& folder, const ModelConfig& config)
    : folder_(folder) {
  const std::string prefix = model_prefix(folder_);
  const std::vector<MtpPrefix> mtp = mtp_prefixes(config);
  Problems problems(file());
  std::unordered_set<const StoredTensor*> joined;
  // From the table, not from the names that stand there: what a folder claims cannot make this grow.
  for (const ParamSpec& spec : param_table(config).params) {
    if (spec.group != ParamGroup::expert) continue;
    const std::string module = spec.name.substr(0, spec.name.rfind('.') + 1);  // "….mlp.experts."
    const std::string own = prefix + reference_module(module, mtp);
    for (const HfTensor& hf : spec.hf) {
      const std::string_view rest = std::string_view(hf.name).substr(module.size());  // "3.up_proj.weight"
      const size_t dot = rest.find('.');
      const StoredTensor* matrix = folder_.find(own + std::string(rest.substr(dot + 1)));
      if (matrix == nullptr) continue;
      const std::vector<int64_t> shape{config.n_routed_experts * hf.shape[1], hf.shape[0]};
      if (matrix->shape == shape) {
        add(prefix + hf.name, {matrix, std::stoll(std::string(rest.substr(0, dot)))}, hf.shape);
      } else if (!joined.contains(matrix)) {
        problems.add(matrix->name, fmt::format("has shape [{}], expected [{}] of {} experts",
                                               fmt::join(matrix->shape, ", "), fmt::join(shape, ", "),
                                               config.n_routed_experts));
      }
      joined.insert(matrix);
    }
  }
  problems.throw_if_any("the weights must fit config.json");
  for (const auto& [key, tensor] : folder_.tensors()) {
    if (joined.contains(&tensor)) continue;
    const bool of_the_model = key.starts_with(prefix);
    add(of_the_model ? prefix + hf_name(key.substr(prefix.size()), mtp) : key, {&tensor, -1}, tensor.shape);
  }
}

void ReferenceStore::add(std::string name, const Origin& origin, std::vector<int64_t> shape) {
  const StoredTensor tensor{name, origin.tensor->dtype, std::move(shape), origin.tensor->file};
  if (!tensors_.emplace(name, tensor).second)
    throw InputError(file(), origin.tensor->name, fmt::format("another tensor stands for {} too", name));
  origins_.emplace(std::move(name), origin);
}

void ReferenceStore::read_bytes(const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) const {
  const Origin& origin = origins_.at(tensor.name);
  if (origin.expert < 0) return folder_.read_bytes(*origin.tensor, begin, out);
  const int64_t size = dtype_size(tensor.dtype), width = tensor.shape[1];
  for_each_block(
      width, begin, begin + static_cast<int64_t>(out.size()) / size,
      [&](const MatrixBlock& block, int64_t offset) {
        const MatrixBlock stored{origin.expert * width + block.col, block.cols, block.row, block.rows};
        folder_.read_transposed(*origin.tensor, stored,
                                out.subspan(static_cast<size_t>(offset * size),
                                            static_cast<size_t>(block.rows * block.cols * size)));
      });
}

}  // namespace dsv3
