#include "dsv3/convert/hf_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/base/checked.h"
#include "dsv3/convert/fp8.h"

namespace dsv3 {

int64_t HfItem::numel() const { return checked_numel(shape).value(); }
std::vector<int64_t> HfItem::scale_shape() const { return fp8_scale_shape(shape[0], shape[1]); }
uint64_t HfItem::scale_bytes() const {
  return is_fp8() ? sizeof(float) * static_cast<uint64_t>(checked_numel(scale_shape()).value()) : 0;
}
uint64_t HfItem::bytes() const { return static_cast<uint64_t>(numel() * dtype_size(dtype)) + scale_bytes(); }

bool is_fp8_weight(const ParamSpec& spec) {
  switch (spec.role) {
    case Role::q_proj:
    case Role::q_a_proj:
    case Role::q_b_proj:
    case Role::kv_a_proj:
    case Role::kv_b_proj:
    case Role::o_proj:
    case Role::gate_proj:
    case Role::up_proj:
    case Role::down_proj:
    case Role::experts_gate_up:
    case Role::experts_down:
    case Role::shared_gate_proj:
    case Role::shared_up_proj:
    case Role::shared_down_proj:
      return true;
    default:
      return false;
  }
}

DType hf_stored_dtype(const ParamSpec& spec, DType dtype) {
  if (spec.role == Role::router_bias) return DType::f32;
  return dtype == DType::f8_e4m3 && !is_fp8_weight(spec) ? DType::bf16 : dtype;
}

std::vector<SafetensorsWriter::Entry> HfShard::entries() const {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const HfItem& item : items)
    if (item.is_fp8()) entries.push_back({fp8_scale_name(item.name), DType::f32, item.scale_shape()});
  for (const HfItem& item : items) entries.push_back({item.name, item.dtype, item.shape});
  return entries;
}

uint64_t HfShard::scale_bytes() const {
  uint64_t bytes = 0;
  for (const HfItem& item : items) bytes += item.scale_bytes();
  return bytes;
}

std::vector<HfShard> plan_hf_folder(const ParamTable& table, const ModelConfig& config,
                                    const std::function<DType(const ParamSpec&)>& dtype_of,
                                    uint64_t max_bytes) {
  std::vector<HfShard> shards;
  uint64_t size = 0;
  auto add = [&](HfItem item) {
    if (shards.empty() || size + item.bytes() > max_bytes) {
      shards.emplace_back();
      size = 0;
    }
    size += item.bytes();
    shards.back().items.push_back(std::move(item));
  };
  for (const ParamSpec& spec : table.params)
    for (const HfTensor& hf : spec.hf) add({hf.name, dtype_of(spec), hf.shape, &spec, hf.offset});
  for (const SharedCopy& copy : mtp_shared_copies(config)) {
    const ParamSpec* spec = table.find(copy.of);
    add({copy.name, dtype_of(*spec), spec->shape, spec, 0});
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    // Larger dtypes first keeps every tensor aligned.
    std::ranges::stable_sort(shards[i].items, std::greater{},
                             [](const HfItem& item) { return dtype_size(item.dtype); });
  }
  return shards;
}

std::string hf_index_text(const std::vector<HfShard>& shards) {
  Json weight_map = Json::object();
  auto& map = weight_map.get_ref<Json::object_t&>();
  uint64_t total = 0;
  for (const HfShard& shard : shards) {
    for (const HfItem& item : shard.items) {
      map.emplace_back(item.name, shard.name);  // names differ: no search for an equal one
      if (item.is_fp8()) map.emplace_back(fp8_scale_name(item.name), shard.name);
      total += item.bytes();
    }
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  return index.dump(2) + "\n";
}

Json hf_config_json(const ModelConfig& config, DType dtype) {
  Json json = config.to_json();
  json["architectures"] = {"DeepseekV3ForCausalLM"};
  json["model_type"] = "deepseek_v3";
  json["torch_dtype"] = dtype == DType::f64   ? "float64"
                        : dtype == DType::f32 ? "float32"
                        : dtype == DType::f16 ? "float16"
                                              : "bfloat16";
  // What the source said of its own files: their dtype by its newer key, their Python code.
  for (const char* key : {"dtype", "auto_map"}) json.erase(key);
  if (dtype == DType::f8_e4m3) {
    const Json released = {{"activation_scheme", "dynamic"},
                           {"fmt", "e4m3"},
                           {"quant_method", "fp8"},
                           {"weight_block_size", {kFp8Block, kFp8Block}}};
    const auto said = config.source.find("quantization_config");
    json["quantization_config"] = said != config.source.end() && said->is_object() ? *said : released;
  }
  return json;
}

}  // namespace dsv3
