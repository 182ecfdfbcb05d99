#include "dsv3/config/model_config.h"

#include <cmath>

#include "dsv3/base/error.h"
#include "dsv3/config/model_fields.h"

namespace dsv3 {
namespace {

// Names that transformers maps to the released ones.
constexpr std::pair<const char*, const char*> kAliases[] = {
    {"num_local_experts", "n_routed_experts"},
    {"num_mtp_layers", "num_nextn_predict_layers"},
};
// Left out when written: keys that repeat other fields (checked against them when read), and what config.json
// says of the files beside it.
constexpr const char* kNotWritten[] = {"head_dim", "qk_head_dim", "quantization_config"};

int64_t read_int(const Json& value, std::string_view file, const char* key) {
  const bool fits =
      value.is_number_unsigned() ? value.get<uint64_t>() <= INT64_MAX : value.is_number_integer();
  if (!fits) throw InputError(file, key, shown(value) + ", expected an integer");
  return value.get<int64_t>();
}

void resolve_aliases(Json& json, std::string_view file) {
  for (const auto& [alias, key] : kAliases) {
    const auto found = json.find(alias);
    if (found == json.end()) continue;
    if (json.contains(key) && json[key] != *found) {
      throw InputError(file, alias, shown(*found) + " contradicts " + key + " = " + shown(json[key]));
    }
    const Json value = *found;
    json[key] = value;
    json.erase(alias);
  }
}

void read_ints(const Json& json, std::string_view file, bool moe, ModelConfig& config) {
  for (const IntField& field : int_fields()) {
    const auto found = json.find(field.key);
    if (found == json.end() || field.moe != moe) continue;
    // The released modeling code writes "no shared experts" as null.
    const bool none = found->is_null() && field.member == &ModelConfig::n_shared_experts;
    config.*field.member = none ? 0 : read_int(*found, file, field.key);
  }
}

void read_others(const Json& json, std::string_view file, ModelConfig& config) {
  for (const RealField& field : real_fields()) {
    const auto found = json.find(field.key);
    if (found == json.end() || (field.moe && !config.has_moe())) continue;
    if (!found->is_number()) throw InputError(file, field.key, shown(*found) + ", expected a number");
    config.*field.member = found->get<double>();
  }
  for (const BoolField& field : bool_fields()) {
    const auto found = json.find(field.key);
    if (found == json.end()) continue;
    if (!found->is_boolean()) throw InputError(file, field.key, shown(*found) + ", expected true or false");
    config.*field.member = found->get<bool>();
  }
  for (const OptionalField& field : optional_fields()) {
    auto found = json.find(field.key);
    if (found == json.end()) continue;
    const Json* value = &*found;
    if (field.member == &ModelConfig::eos_token_id && value->is_array() && !value->empty())
      value = &value->front();
    if (value->is_null()) {
      (config.*field.member).reset();
    } else {
      config.*field.member = read_int(*value, file, field.key);
    }
  }
}

void check_derived(const Json& json, std::string_view file, const ModelConfig& config) {
  const std::pair<const char*, int64_t> expected[] = {{"num_key_value_heads", config.num_attention_heads},
                                                      {"head_dim", config.qk_rope_head_dim},
                                                      {"qk_head_dim", config.qk_head_dim()}};
  for (const auto& [key, value] : expected) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null() || *found == value) continue;
    throw InputError(file, key, shown(*found) + " is not implemented, expected " + std::to_string(value));
  }
}

}  // namespace

ModelConfig ModelConfig::from_json(const Json& json, std::string_view file) {
  if (!json.is_object()) throw InputError(file, "", "expected a JSON object at the top");
  check_fixed_keys(json, file);
  ModelConfig config;
  config.source = json;
  resolve_aliases(config.source, file);
  // The layers first: they decide whether the experts' keys mean anything.
  read_ints(config.source, file, false, config);
  for (const IntField& field : int_fields()) {
    if (!field.moe) check_range(field, config, file);
  }
  if (config.has_moe()) read_ints(config.source, file, true, config);
  read_others(config.source, file, config);
  read_rope(config.source, file, config);
  check_derived(config.source, file, config);
  config.validate(file);
  return config;
}

ModelConfig ModelConfig::load(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw UsageError(printable(path.string(), 400), "no such file or folder",
                     "expected a config.json or its folder");
  }
  const auto file = std::filesystem::is_directory(status) ? path / "config.json" : path;
  if (!std::filesystem::exists(file, error)) throw InputError(path.string(), "config.json", "is missing");
  return from_json(read_json(file, 4 << 20), file.string());
}

bool ModelConfig::has_moe() const {
  for (int64_t layer = 0; layer < num_hidden_layers + num_nextn_predict_layers; ++layer) {
    if (is_moe(layer)) return true;
  }
  return false;
}

Json ModelConfig::to_json() const {
  Json json = source;
  if (!json.contains("architectures") || json["architectures"].is_null()) {
    json["architectures"] = Json::array({"DeepseekV3ForCausalLM"});
  }
  if (!json.contains("model_type")) json["model_type"] = "deepseek_v3";
  const bool moe = has_moe();
  for (const IntField& field : int_fields()) {
    if (moe || !field.moe) json[field.key] = this->*field.member;
  }
  for (const RealField& field : real_fields()) {
    if (moe || !field.moe) json[field.key] = this->*field.member;
  }
  for (const BoolField& field : bool_fields()) json[field.key] = this->*field.member;
  for (const OptionalField& field : optional_fields()) {
    const auto& value = this->*field.member;
    Json& out = json[field.key];
    const bool same_list = out.is_array() && !out.empty() && value && out.front() == *value;
    if (!same_list) out = value ? Json(*value) : Json(nullptr);
  }
  json["num_key_value_heads"] = num_attention_heads;
  for (const char* key : kNotWritten) json.erase(key);
  write_rope(*this, json);
  return json;
}

}  // namespace dsv3
