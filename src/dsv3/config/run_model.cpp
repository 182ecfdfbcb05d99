// The [model] section: a preset or a config.json with single fields written over it.
#include <algorithm>

#include "dsv3/base/error.h"
#include "dsv3/config/model_fields.h"
#include "dsv3/config/run_keys.h"

namespace dsv3 {
namespace {

// The model that overrides start from, as config.json, and the origin of its values.
struct Base {
  Json json = Json::object();
  std::string origin = "default";
  bool whole = false;  // false: [model] itself must hold a whole config.json
};

Base load_base(const Entry& entry) {
  if (!entry.value.is_string()) throw UsageError(entry.where, shown(entry.value) + ", expected a string");
  const auto text = entry.value.get<std::string>();
  if (entry.key == "model.preset") {
    const auto preset = ModelConfig::preset(text);
    if (!preset) {
      std::string names;
      for (const std::string& name : ModelConfig::preset_names()) names += (names.empty() ? "" : "|") + name;
      throw UsageError(entry.where, shown(entry.value) + ", expected " + names,
                       "did you mean " + nearest(text, ModelConfig::preset_names()) + "?");
    }
    return {preset->to_json(), "preset " + text, true};
  }
  const auto path = (entry.folder / text).lexically_normal();
  std::error_code error;
  if (text.empty() || !std::filesystem::exists(path, error)) {
    throw UsageError(entry.where, printable(path.string(), 400) + ": no such file or folder");
  }
  return {ModelConfig::load(path).to_json(), printable(path.string(), 400), true};
}

// A table is written over a table key by key; TOML has no null, so "null" stands for it.
void patch(Json& target, const Json& value) {
  if (value.is_object() && target.is_object()) {
    for (const auto& [key, item] : value.items()) patch(target[key], item);
  } else {
    target = value == "null" ? Json(nullptr) : value;
  }
}

void apply(const Entry& entry, Json& json) {
  Json* target = &json;
  std::string_view rest = std::string_view(entry.key).substr(6);
  for (size_t dot; (dot = rest.find('.')) != std::string_view::npos; rest.remove_prefix(dot + 1)) {
    target = &(*target)[std::string(rest.substr(0, dot))];
    if (!target->is_object()) *target = Json::object();
  }
  patch((*target)[std::string(rest)], entry.value);
}

// "model: n_group: 3, expected …" becomes an error at the override that wrote n_group, or at the last one.
[[noreturn]] void blame(const std::string& message, const std::vector<const Entry*>& overrides) {
  const std::string text = message.substr(message.find(": ") + 2);
  for (const Entry* entry : overrides) {
    const std::string field = entry->key.substr(6);
    if (!text.starts_with(field)) continue;
    const std::string rest = text.substr(field.size());
    if (rest.starts_with(": ")) throw UsageError(entry->where, rest.substr(2));
    if (rest.starts_with(".")) throw UsageError(entry->where, rest.substr(1));
  }
  throw UsageError(overrides.back()->where, text);
}

}  // namespace

void resolve_model(const std::vector<Entry>& entries, const std::optional<ModelConfig>& base_model,
                   RunConfig& run) {
  Base base;
  if (base_model) base = {base_model->to_json(), "--model", true};
  std::vector<const Entry*> overrides;
  for (const Entry& entry : entries) {
    if (!entry.key.starts_with("model.") || entry.key == "model.init") continue;
    if (entry.key == "model.config" || entry.key == "model.preset") {
      if (base_model) throw UsageError(entry.where, "the model comes from --model");
      base = load_base(entry);
    } else {
      overrides.push_back(&entry);
    }
  }
  if (!base.whole && overrides.empty()) return;

  const auto overridden = [&](const std::string& key) {
    return std::any_of(overrides.begin(), overrides.end(), [&](const Entry* entry) {
      return entry->key == "model." + key || entry->key.starts_with("model." + key + ".");
    });
  };
  // These follow other fields; rope_scaling would win over the rope_parameters that the user wrote.
  if (overridden("num_attention_heads")) base.json.erase("num_key_value_heads");
  if (overridden("rope_parameters")) base.json.erase("rope_scaling");
  for (const Entry* entry : overrides) apply(*entry, base.json);
  try {
    run.model = ModelConfig::from_json(base.json, "model");
  } catch (const InputError& error) {
    if (overrides.empty()) throw;
    blame(error.what(), overrides);
  }

  run.origin["model"] = base.origin;
  for (const std::string& key : known_model_keys()) run.origin["model." + key] = base.origin;
  for (const Entry* entry : overrides) {
    run.origin[entry->key.substr(0, entry->key.find('.', 6))] = entry->origin;
  }
}

}  // namespace dsv3
