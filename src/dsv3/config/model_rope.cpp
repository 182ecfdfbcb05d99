// RoPE in config.json, old keys and new, with the precedence of transformers 5.17 (modeling_rope_utils.py,
// convert_rope_params_to_dict and standardize_rope_params): a non-empty rope_scaling wins over
// rope_parameters, and a value inside the dictionary wins over the same key outside, except
// original_max_position_embeddings.
#include <cmath>
#include <set>

#include "dsv3/base/error.h"
#include "dsv3/config/model_fields.h"

namespace dsv3 {
namespace {

// Reads numbers out of one object of config.json; null is absent.
struct Numbers {
  const Json& object;
  std::string_view file;
  std::string prefix;  // of keys in messages, e.g. "rope_scaling."

  std::optional<double> real(const char* key) const {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return std::nullopt;
    if (!found->is_number()) fail(key, shown(*found) + ", expected a number");
    const double value = found->get<double>();
    if (!std::isfinite(value)) fail(key, shown(*found) + ", expected a finite number");
    return value;
  }
  std::optional<int64_t> length(const char* key) const {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return std::nullopt;
    if (!found->is_number_integer() || *found < 1 || *found > int64_t{1} << 31) {
      fail(key, shown(*found) + ", expected a positive integer");
    }
    return found->get<int64_t>();
  }
  std::optional<double> not_negative(const char* key) const {
    const auto value = real(key);
    if (value.value_or(0) < 0) fail(key, shown(object.at(key)) + ", expected a number >= 0");
    return value;
  }
  // 0 counts as absent, as in transformers.
  double or_default(const char* key, double otherwise) const {
    const double value = not_negative(key).value_or(0);
    return value == 0 ? otherwise : value;
  }
  [[noreturn]] void fail(const char* key, const std::string& why) const {
    throw InputError(file, prefix + key, why);
  }
};

const std::set<std::string> kRopeKeys = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
const std::set<std::string> kYarnKeys = {
    "factor",         "beta_fast",        "beta_slow", "mscale",
    "mscale_all_dim", "attention_factor", "truncate",  "original_max_position_embeddings"};

YarnConfig read_yarn(const Numbers& in, const Numbers& outer, int64_t max_position_embeddings) {
  YarnConfig yarn;
  const auto factor = in.real("factor");
  if (!factor) in.fail("factor", "is missing, YaRN needs it");
  if (*factor < 1) in.fail("factor", shown(in.object.at("factor")) + ", expected a number >= 1");
  yarn.factor = *factor;
  yarn.beta_fast = in.or_default("beta_fast", 32);
  yarn.beta_slow = in.or_default("beta_slow", 1);
  if (yarn.beta_fast < yarn.beta_slow) in.fail("beta_fast", "is smaller than beta_slow");
  yarn.mscale = in.not_negative("mscale");
  yarn.mscale_all_dim = in.not_negative("mscale_all_dim");
  yarn.attention_factor = in.real("attention_factor");
  if (yarn.attention_factor && *yarn.attention_factor <= 0) {
    in.fail("attention_factor", shown(in.object.at("attention_factor")) + ", expected a number > 0");
  }
  constexpr const char* kOriginal = "original_max_position_embeddings";
  const auto inside = in.length(kOriginal), outside = outer.length(kOriginal);
  yarn.original_max_position_embeddings = outside ? *outside : inside.value_or(max_position_embeddings);
  if (const auto found = in.object.find("truncate"); found != in.object.end()) {
    if (!found->is_boolean()) in.fail("truncate", shown(*found) + ", expected true or false");
    yarn.truncate = found->get<bool>();
  }
  return yarn;
}

}  // namespace

void read_rope(const Json& json, std::string_view file, ModelConfig& config) {
  static const Json kNone = Json::object();
  const Json* rope = &kNone;
  std::string prefix;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) continue;
    if (!found->is_object()) throw InputError(file, key, shown(*found) + ", expected an object or null");
    if (!found->empty() && rope->empty()) {
      rope = &*found;
      prefix = std::string(key) + ".";
    }
  }
  const Numbers in{*rope, file, prefix}, outer{json, file, ""};
  for (const auto& [key, value] : rope->items()) {
    if (!kRopeKeys.contains(key) && !kYarnKeys.contains(key))
      in.fail(key.c_str(), shown(value) + ": unknown key");
  }
  if (in.real("partial_rotary_factor").value_or(1) != 1) {
    in.fail("partial_rotary_factor",
            shown(rope->at("partial_rotary_factor")) + " is not implemented, expected 1");
  }

  const auto inside = in.real("rope_theta"), outside = outer.real("rope_theta");
  config.rope_theta = inside ? *inside : outside.value_or(10000);
  if (config.rope_theta <= 1) {
    (inside ? in : outer).fail("rope_theta", std::to_string(config.rope_theta) + ", expected a number > 1");
  }
  const char* type_key = rope->contains("rope_type") ? "rope_type" : "type";
  const Json type = rope->value(type_key, Json("default"));
  config.yarn.reset();
  if (type == "yarn") {
    config.yarn = read_yarn(in, outer, config.max_position_embeddings);
  } else if (type != "default") {
    in.fail(type_key, shown(type) + " is not implemented, expected \"default\" or \"yarn\"");
  } else {
    for (const auto& [key, value] : rope->items()) {
      if (kYarnKeys.contains(key))
        in.fail(key.c_str(), shown(value) + " has no effect without type = \"yarn\"");
    }
  }
}

void write_rope(const ModelConfig& config, Json& json) {
  json.erase("rope_parameters");
  json.erase("original_max_position_embeddings");
  json["rope_theta"] = config.rope_theta;
  json["rope_scaling"] = nullptr;
  if (!config.yarn) return;
  const YarnConfig& yarn = *config.yarn;
  Json& out = json["rope_scaling"];
  out = {{"type", "yarn"},
         {"factor", yarn.factor},
         {"beta_fast", yarn.beta_fast},
         {"beta_slow", yarn.beta_slow}};
  if (yarn.mscale) out["mscale"] = *yarn.mscale;
  if (yarn.mscale_all_dim) out["mscale_all_dim"] = *yarn.mscale_all_dim;
  if (yarn.attention_factor) out["attention_factor"] = *yarn.attention_factor;
  out["original_max_position_embeddings"] = yarn.original_max_position_embeddings;
  if (!yarn.truncate) out["truncate"] = false;
}

}  // namespace dsv3
