// Weights into and out of a model: initialisation, Hugging Face folders.

#include "dsv3/base/error.h"
#include "dsv3/base/philox.h"
#include "dsv3/convert/hf_folder.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/parallel/model.h"

namespace dsv3 {
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements that travel at a time

// Fills flat `target` (fp32 or fp64, any device) piece by piece from fn(begin, span).
template <class Fn>
void fill_pieces(at::Tensor target, Fn fn) {
  const at::Tensor flat = target.view({-1});
  std::vector<float> narrow;
  std::vector<double> wide;
  for (int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
    const int64_t count = std::min(kPiece, flat.numel() - begin);
    at::Tensor piece = flat.narrow(0, begin, count);
    if (target.scalar_type() == at::kDouble) {
      wide.resize(count);
      fn(begin, std::span<double>(wide));
      piece.copy_(at::from_blob(wide.data(), {count}, at::kDouble));
    } else {
      narrow.resize(count);
      fn(begin, std::span<float>(narrow));
      piece.copy_(at::from_blob(narrow.data(), {count}, at::kFloat));
    }
  }
}

}  // namespace

void Model::initialise(uint64_t seed) {
  at::NoGradGuard no_grad;
  const ModelConfig& config = shared_.config;
  for (const auto& flat : flat_units_) {
    for (FlatUnit::Slot& slot : flat->slots()) {
      at::Tensor master = flat->master_of(slot);
      if (slot.spec->init != InitKind::normal) {
        master.fill_(slot.spec->init == InitKind::ones ? 1 : 0);
        continue;
      }
      const uint64_t purpose = hash_name(slot.spec->name);
      fill_pieces(master, [&](int64_t begin, auto out) {
        std::vector<float> values(out.size());
        philox_normal(values, config.initializer_range, seed, purpose, static_cast<uint64_t>(begin));
        std::copy(values.begin(), values.end(), out.begin());
      });
      if (slot.spec->role == Role::embed_tokens && config.pad_token_id) master[*config.pad_token_id].zero_();
    }
  }
  for (RouterState& state : router_states_) state.bias_E.zero_();
}

std::vector<int64_t> Model::load(const std::filesystem::path& folder, bool allow_missing_mtp) {
  at::NoGradGuard no_grad;
  const HfReader reader(folder, shared_.config);
  const std::vector<int64_t>& missing = reader.missing_mtp();
  if (!missing.empty() && !allow_missing_mtp)
    throw InputError(folder.string(), "MTP depth " + std::to_string(missing.front()),
                     "the weights hold none of its tensors", "set mtp.init_missing = true to initialise it");
  auto absent = [&](const ParamSpec& spec) {
    return std::any_of(missing.begin(), missing.end(), [&](int64_t depth) {
      return spec.unit == table_.block_unit(table_.num_blocks + depth - 1);
    });
  };
  for (const auto& flat : flat_units_)
    for (FlatUnit::Slot& slot : flat->slots())
      if (!absent(*slot.spec))
        fill_pieces(flat->master_of(slot),
                    [&](int64_t begin, auto out) { reader.read(*slot.spec, begin, out); });
  for (const ParamSpec& spec : table_.params) {
    if (spec.role != Role::router_bias || absent(spec)) continue;
    const int64_t layer = spec.unit <= table_.num_blocks ? spec.unit - 1 : spec.unit - 2;
    fill_pieces(router_state(layer)->bias_E, [&](int64_t begin, auto out) { reader.read(spec, begin, out); });
  }
  return missing;
}

void Model::save_hf(const std::filesystem::path& folder) const {
  at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> values;
  for (const auto& flat : flat_units_)
    for (const FlatUnit::Slot& slot : flat->slots()) values[slot.spec->name] = flat->master_of(slot);
  for (const ParamSpec& spec : table_.params)
    if (spec.role == Role::router_bias)
      for (const RouterState& state : router_states_)
        if (table_.block_unit(state.layer) == spec.unit) values[spec.name] = state.bias_E;
  write_hf_folder(folder, shared_.config,
                  [&](const ParamSpec& spec, int64_t begin, std::span<float> out) {
                    const at::Tensor part =
                        values.at(spec.name).view({-1}).narrow(0, begin, static_cast<int64_t>(out.size()));
                    at::from_blob(out.data(), {static_cast<int64_t>(out.size())}, at::kFloat).copy_(part);
                  },
                  {.dtype = exec_.dtype == at::kBFloat16 ? DType::bf16 : DType::f32});
}

}  // namespace dsv3
