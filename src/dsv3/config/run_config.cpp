#include "dsv3/config/run_config.h"

#include <algorithm>
#include <numeric>

#include "dsv3/base/error.h"
#include "dsv3/config/model_fields.h"
#include "dsv3/config/run_keys.h"

namespace dsv3 {
namespace {

// Of two keys that exclude each other one may stand in the file and the other, which wins, in a flag.
void keep_one(std::vector<Entry>& entries, const std::string& a, const std::string& b) {
  const auto find = [&](const std::string& key, bool flag) {
    return std::find_if(entries.begin(), entries.end(),
                        [&](const Entry& entry) { return entry.key == key && entry.flag == flag; });
  };
  for (const bool flag : {false, true}) {
    if (find(a, flag) != entries.end() && find(b, flag) != entries.end()) {
      throw UsageError(find(b, flag)->where, "excludes " + a, "keep one of the two");
    }
  }
  for (const auto& [winner, loser] : {std::pair(a, b), std::pair(b, a)}) {
    if (find(winner, true) == entries.end()) continue;
    if (const auto found = find(loser, false); found != entries.end()) entries.erase(found);
  }
}

RunConfig build(std::vector<Entry> entries, const std::optional<ModelConfig>& model) {
  keep_one(entries, "model.config", "model.preset");
  keep_one(entries, "train.steps", "train.tokens");
  RunConfig run;
  if (model) run.model = *model;
  run.origin["model"] = "default";
  for (const RunKey& key : run_keys()) run.origin[key.name] = "default";
  for (const std::string& key : known_model_keys()) run.origin["model." + key] = "default";
  resolve_model(entries, model, run);

  std::map<std::string, std::string> where;
  for (const Entry& entry : entries) {
    const RunKey* key = find_run_key(entry.key);
    if (!key) continue;  // model.*
    set_value(*key, entry.value, entry.where, entry.folder, run);
    where[entry.key] = entry.where;
    run.origin[entry.key] = entry.origin;
  }
  if (!where.contains("train.deterministic")) run.train.deterministic = run.train.device == "cpu";
  if (!where.contains("train.micro_batch")) {
    run.train.micro_batch = std::gcd(run.train.global_batch, run.train.micro_batch);
  }
  check_run(run, where);
  return run;
}

// JSON's numbers and strings are TOML's too; tables stand on one line, null is spelled (see patch in
// run_model.cpp).
std::string toml_text(const Json& value) {
  if (value.is_null()) return "\"null\"";
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += key + " = ";
    text += toml_text(item);
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

RunConfig RunConfig::load(const std::filesystem::path& file, const std::vector<std::string>& flags) {
  std::vector<Entry> entries = parse_run_file(file);
  for (Entry& entry : parse_flags(flags)) entries.push_back(std::move(entry));
  const auto has = [&](const std::string& prefix) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const auto& entry) { return entry.key.starts_with(prefix); });
  };
  const std::string name = printable(file.string(), 400);
  if (!has("model.config") && !has("model.preset") && !has("model.model_type")) {
    throw UsageError(name + ": model", "is missing",
                     "write preset = \"tiny\" or config = \"DIR/config.json\" under [model]");
  }
  RunConfig run = build(std::move(entries), {});
  if (run.data.train.empty()) throw UsageError(name + ": data.train", "is missing", "see dsv3 prepare");
  if (run.train.steps == 0 && run.train.tokens == 0) {
    throw UsageError(name + ": train.steps", "is missing", "or give train.tokens");
  }
  if (run.train.out.empty()) run.train.out = (file.parent_path() / "runs" / file.stem()).string();
  return run;
}

RunConfig RunConfig::from_flags(const std::vector<std::string>& flags,
                                const std::optional<ModelConfig>& model) {
  return build(parse_flags(flags), model);
}

std::vector<RunConfig::Value> RunConfig::resolved() const {
  std::vector<Value> values;
  const Json fields = model.to_json();
  for (const std::string& key : known_model_keys()) {
    if (fields.contains(key)) values.push_back({"model." + key, fields[key], origin.at("model." + key)});
  }
  for (const RunKey& key : run_keys()) {
    values.push_back({key.name, get_value(key, *this), origin.at(key.name)});
  }
  return values;
}

std::string RunConfig::to_toml() const {
  std::string text, section;
  for (Value& entry : resolved()) {
    const size_t dot = entry.key.find('.');
    const RunKey* key = find_run_key(entry.key);
    const bool length = entry.key == "train.steps" || entry.key == "train.tokens";
    const bool unset = (entry.value.is_string() || entry.value.is_array()) && entry.value.empty();
    const bool no_text = entry.value.is_string() && entry.value.get_ref<const std::string&>().empty();
    if (unset || no_text || (length && entry.value == 0)) continue;
    if (key && key->path != PathKind::none) {
      if (entry.value.is_array()) {
        for (Json& source : entry.value) source["path"] = absolute(source["path"].get<std::string>());
      } else if (!path_values(*key, *this).empty()) {
        entry.value = absolute(entry.value.get<std::string>());
      }
    }
    if (entry.key.substr(0, dot) != section) {
      section = entry.key.substr(0, dot);
      text += (text.empty() ? "[" : "\n[") + section + "]\n";
    }
    text += entry.key.substr(dot + 1) + " = " + toml_text(entry.value) + "\n";
  }
  return text;
}

std::string run_keys_help() {
  const RunConfig defaults;
  std::string text;
  for (const RunKey& key : run_keys()) {
    text += "  --" + std::string(key.name) + "  " + key.help + ": " + expected_value(key);
    const Json value = get_value(key, defaults);
    if (!value.is_structured() && value != "" && key.path == PathKind::none)
      text += " [" + value.dump() + "]";
    text += "\n";
  }
  return text;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = SIZE_MAX;
  word = word.substr(0, 100);
  for (const std::string& candidate : candidates) {
    // Levenshtein's distance, one row at a time.
    std::vector<size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (size_t i = 0; i < word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i + 1;
      for (size_t j = 0; j < candidate.size(); ++j) {
        const size_t replaced = diagonal + (word[i] != candidate[j]);
        diagonal = row[j + 1];
        row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace dsv3
