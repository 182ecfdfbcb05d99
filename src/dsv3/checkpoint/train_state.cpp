#include "dsv3/checkpoint/train_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "dsv3/base/error.h"
#include "dsv3/convert/manifest.h"

namespace dsv3 {
namespace {

constexpr const char* kField = "dsv3.state";

// Where and how a run is executed: of these any may change without a word.
constexpr std::string_view kFree[] = {"model.",
                                      "checkpoint.",
                                      "parallel.",
                                      "metrics.",
                                      "eval.",
                                      "ops.",
                                      "data.valid",
                                      "data.tokenizer",
                                      "train.out",
                                      "train.steps",
                                      "train.tokens",
                                      "train.device",
                                      "train.micro_batch",
                                      "train.max_bad_steps",
                                      "train.deterministic"};

// section.key -> value of a text by RunConfig::to_toml: one line each.
std::map<std::string, std::string> values_of(const std::string& toml) {
  std::map<std::string, std::string> values;
  std::istringstream lines(toml);
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find(" = ");
    if (line.starts_with('['))
      section = line.substr(1, line.find(']') - 1) + ".";
    else if (equals != std::string::npos)
      values[section + line.substr(0, equals)] = line.substr(equals + 3);
  }
  return values;
}

// Of these a model with the weights of another may have its own: what weights are drawn with, how long a text
// may be, tokens that only generation and the look-up's gradient ask for, and MTP modules, whose absence
// mtp.init_missing answers.
constexpr std::string_view kOwn[] = {"initializer_range", "max_position_embeddings",
                                     "bos_token_id",      "eos_token_id",
                                     "pad_token_id",      "num_nextn_predict_layers"};
// Fields that change what the same tensors compute.
constexpr std::string_view kOfNoShape[] = {"rope_theta",     "rope_scaling",         "rms_norm_eps",
                                           "n_group",        "topk_group",           "num_experts_per_tok",
                                           "norm_topk_prob", "routed_scaling_factor"};

// The fields that the program reads, without what config.json carries beside them.
Json fields(ModelConfig model) {
  model.source = Json::object();
  return model.to_json();
}

bool is_one_of(const std::string& key, std::span<const std::string_view> keys) {
  return std::ranges::find(keys, key) != keys.end();
}

// {field, "FIELD 3 there, 4 here"} of each that differs.
std::vector<std::pair<std::string, std::string>> differences_of(const ModelConfig& there,
                                                                const ModelConfig& here) {
  const Json theirs = fields(there), ours = fields(here);
  std::vector<std::pair<std::string, std::string>> found;
  auto compare = [&](const std::string& key, const Json& a, const Json& b) {
    if (a != b) found.emplace_back(key, fmt::format("{} {} there, {} here", key, a.dump(), b.dump()));
  };
  for (const auto& [key, value] : ours.items()) compare(key, theirs.value(key, Json()), value);
  for (const auto& [key, value] : theirs.items())
    if (!ours.contains(key)) compare(key, value, Json());
  return found;
}

}  // namespace

std::string SavedState::text() const {
  return Json{{"version", 1},           {"step", train.step},       {"tokens", train.tokens},
              {"cursor", train.cursor}, {"skipped", train.skipped}, {"bad_in_a_row", train.bad_in_a_row},
              {"updates", updates},     {"model", model.to_json()}, {"run", run}}
      .dump();
}

SavedState SavedState::parse(std::string_view text, std::string_view file) {
  const Json json = parse_json(text, file);
  auto value = [&](const char* name) -> const Json& {
    const auto found = json.is_object() ? json.find(name) : json.end();
    if (found == json.end()) throw InputError(file, kField, fmt::format("'{}' is missing", name));
    return *found;
  };
  auto count = [&](const char* name) {
    const Json& number = value(name);
    if (!number.is_number_integer() || number.get<int64_t>() < 0)
      throw InputError(file, kField, fmt::format("'{}' is no count", name));
    return number.get<int64_t>();
  };
  if (count("version") != 1)
    throw InputError(file, kField, fmt::format("version {}, this program reads 1", value("version").dump()));
  const Json& run = value("run");
  if (!run.is_string()) throw InputError(file, kField, "'run' is no text");
  return {.train = {.step = count("step"),
                    .tokens = count("tokens"),
                    .cursor = count("cursor"),
                    .skipped = count("skipped"),
                    .bad_in_a_row = count("bad_in_a_row")},
          .updates = count("updates"),
          .model = ModelConfig::from_json(value("model"), file),
          .run = run.get<std::string>()};
}

std::vector<std::string> changed_keys(const std::string& saved_run, const RunConfig& run) {
  const std::map<std::string, std::string> there = values_of(saved_run), here = values_of(run.to_toml());
  std::set<std::string> keys;
  for (const auto& values : {there, here})
    for (const auto& [key, value] : values) keys.insert(key);
  const auto value = [](const std::map<std::string, std::string>& values, const std::string& key) {
    const auto found = values.find(key);
    return found == values.end() ? "unset" : printable(found->second);
  };
  std::vector<std::string> changes;
  for (const std::string& key : keys) {
    const bool free =
        std::ranges::any_of(kFree, [&](std::string_view part) { return key.starts_with(part); });
    if (!free && value(there, key) != value(here, key))
      changes.push_back(fmt::format("{} {} there, {} here", key, value(there, key), value(here, key)));
  }
  return changes;
}

void require_same_model(const ModelConfig& saved, const ModelConfig& model, std::string_view checkpoint) {
  std::vector<std::string> differences;
  for (const auto& [key, text] : differences_of(saved, model)) differences.push_back(text);
  if (!differences.empty())
    throw UsageError(
        printable(checkpoint),
        "is of another model: " + printable(fmt::format("{}", fmt::join(differences, "; ")), 1000),
        "resume with the model that was trained, or take its weights alone by model.init");
}

std::vector<std::string> require_init_model(const std::filesystem::path& folder, const RunConfig& run) {
  std::error_code error;
  if (!std::filesystem::exists(folder / "config.json", error)) return {};
  check_listed_file(Manifest::read(folder), folder, "config.json");
  const auto is_written = [&](const std::string& key) {
    const auto origin = run.origin.find("model." + key);
    return origin != run.origin.end() && origin->second != run.origin.at("model");
  };
  std::vector<std::string> others, meant;
  for (const auto& [key, text] : differences_of(ModelConfig::load(folder), run.model)) {
    if (is_one_of(key, kOwn)) continue;
    // rope_parameters are another way to write both fields of RoPE.
    const bool written = is_written(key) || (key.starts_with("rope_") && is_written("rope_parameters"));
    (written && is_one_of(key, kOfNoShape) ? meant : others).push_back(text);
  }
  if (!others.empty())
    throw UsageError(
        "model.init",
        printable(folder.string(), 400) +
            " is of another model: " + printable(fmt::format("{}", fmt::join(others, "; ")), 1000),
        "train the model of its config.json (model.config), or write under [model] what is meant");
  return meant;
}

}  // namespace dsv3
