#include "dsv3/convert/convert_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/base/error.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/hf_plan.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/reference_store.h"

namespace dsv3 {
namespace fs = std::filesystem;

namespace {

std::unique_ptr<ModelWeights> open_weights(const fs::path& folder, const ModelConfig& config,
                                           const ConvertOptions& options) {
  if (!options.from_reference)
    return std::make_unique<ModelWeights>(folder, config, /*compare_copies=*/!options.dry_run);
  if (!is_dcp_folder(folder))
    throw UsageError("--from", "is reference, " + printable(folder.string(), 400) + " is no DCP folder");
  return std::make_unique<ModelWeights>(std::make_unique<ReferenceStore>(folder, config), config,
                                        /*only_model=*/false);
}

}  // namespace

ConvertSource::ConvertSource(const fs::path& folder, const ConvertOptions& options) {
  if (!options.config && is_dcp_folder(folder) && !fs::exists(folder / "config.json"))
    throw UsageError("--config", printable(folder.string(), 400) + " holds no config.json",
                     "name the model's");
  if (!options.config) check_listed_file(Manifest::read(folder), folder, "config.json");
  ModelConfig config = ModelConfig::load(options.config.value_or(folder));
  const int64_t layers = options.layers.value_or(config.num_hidden_layers);
  if (layers > config.num_hidden_layers)
    throw UsageError("--layers", fmt::format("is {}, the model has {}", layers, config.num_hidden_layers));
  weights_ = open_weights(folder, config, options);
  missing_mtp_ = static_cast<int64_t>(weights_->missing_mtp().size());
  config.num_nextn_predict_layers -= missing_mtp_;
  const ParamTable full = param_table(config);
  // What config.json says of FP8 is said of the scales there: it holds while they are copied.
  const bool is_fp8 = std::ranges::all_of(full.params, [&](const ParamSpec& spec) {
    return !is_fp8_weight(spec) || weights_->stored_dtype(spec) == DType::f8_e4m3;
  });
  if (!is_fp8) config.source.erase("quantization_config");
  config_ = config;
  config_.num_hidden_layers = layers;
  table_ = param_table(config_);
  // Equal kinds of unit list equal parameters in an equal order.
  auto in_full = [&](int unit) {
    return unit <= layers ? unit : unit - table_.head_unit() + full.head_unit();
  };
  std::map<int, std::vector<const ParamSpec*>> units;
  for (const ParamSpec& spec : full.params) units[spec.unit].push_back(&spec);
  std::map<int, size_t> next;
  for (const ParamSpec& spec : table_.params)
    origin_.emplace(spec.name, *units.at(in_full(spec.unit)).at(next[spec.unit]++));
}

void ConvertSource::read(const ParamSpec& spec, int64_t begin, int64_t count, DType dtype,
                         std::vector<std::byte>& out) const {
  out.resize(static_cast<size_t>(count * dtype_size(dtype)));
  weights_->read_bytes(origin_.at(spec.name), begin, dtype, out);
}

void ConvertSource::read(const ParamSpec& spec, int64_t begin, std::span<float> out) const {
  weights_->read(origin_.at(spec.name), begin, out);
}

}  // namespace dsv3
