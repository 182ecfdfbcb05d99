#include "dsv3/checkpoint/train_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <sstream>

#include "dsv3/base/error.h"
#include "dsv3/config/shares.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/data/blend.h"
#include "dsv3/data/prefix_info.h"

namespace dsv3 {
namespace {

constexpr int64_t kVersion = 2;  // 1: without "data"

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

// A member of the text that is checked as it is read.
class Member {
 public:
  Member(const Json& json, std::string_view file) : json_(json), file_(file) {}

  Member at(const char* name) const {
    const auto found = json_.is_object() ? json_.find(name) : json_.end();
    if (found == json_.end()) refuse(fmt::format("'{}' is missing", name));
    return {*found, file_};
  }
  int64_t count(const char* name, int64_t least = 0, int64_t most = kMost) const {
    const Json& number = at(name).json_;
    const bool integer = number.is_number_integer() && (!number.is_number_unsigned() || number <= kMost);
    if (!integer || number.get<int64_t>() < least || number.get<int64_t>() > most)
      refuse(fmt::format("'{}' is no count, or an impossible one", name));
    return number.get<int64_t>();
  }
  std::string text(const char* name) const {
    const Json& text = at(name).json_;
    if (!text.is_string()) refuse(fmt::format("'{}' is no text", name));
    return text.get<std::string>();
  }
  std::vector<Member> list(const char* name) const {
    const Json& array = at(name).json_;
    if (!array.is_array() || array.empty()) refuse(fmt::format("'{}' is no list", name));
    std::vector<Member> members;
    for (const Json& member : array) members.emplace_back(member, file_);
    return members;
  }
  const Json& json() const { return json_; }
  [[noreturn]] void refuse(const std::string& why) const { throw InputError(file_, kStateKey, why); }

 private:
  static constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const Json& json_;
  std::string_view file_;
};

Json to_json(const StreamPosition& position) {
  Json sources = Json::array();
  for (const Walk& walk : position.walks)
    sources.push_back(
        {{"prefixes", walk.sources}, {"share", walk.share}, {"order", walk.order}, {"cursor", walk.cursor}});
  return {{"samples", position.samples}, {"sources", sources}};
}

// cursor: of the stream, which no source's passes.
StreamPosition position_of(const Member& data, int64_t cursor) {
  StreamPosition position{.samples = data.count("samples", 0, cursor)};
  std::vector<int64_t> shares;
  int64_t period = 0;
  for (const Member& source : data.list("sources")) {
    Walk& walk =
        position.walks.emplace_back(Walk{.share = source.count("share", 1, kMaxBlendPeriod - period),
                                         .order = source.count("order", kSeedItself, kMaxBlendPeriod),
                                         .cursor = source.count("cursor", 0, cursor)});
    for (const Member& prefix : source.list("prefixes")) {
      if (!prefix.json().is_string()) data.refuse("'prefixes' holds no text");
      walk.sources.push_back(prefix.json().get<std::string>());
    }
    shares.push_back(walk.share);
    period += walk.share;
  }
  const std::vector<int64_t> given =
      shares.size() > 1 ? Blend(shares).drawn(position.samples) : std::vector<int64_t>{position.samples};
  for (size_t i = 0; i < given.size(); ++i)
    if (position.walks[i].cursor < given[i]) data.refuse("a source has given less than its share");
  return position;
}

}  // namespace

std::string SavedState::text() const {
  Json out = {{"version", kVersion},    {"step", train.step},       {"tokens", train.tokens},
              {"cursor", train.cursor}, {"skipped", train.skipped}, {"bad_in_a_row", train.bad_in_a_row},
              {"updates", updates},     {"model", model.to_json()}, {"run", run}};
  if (!tokenizer.empty()) out["tokenizer"] = tokenizer;
  if (!train.data.walks.empty()) out["data"] = to_json(train.data);
  return out.dump();
}

SavedState SavedState::parse(std::string_view text, std::string_view file) {
  const Json json = parse_json(text, file);
  const Member state(json, file);
  const int64_t version = state.count("version");
  if (version < 1 || version > kVersion)
    state.refuse(fmt::format("version {}, this program reads 1 to {}", version, kVersion));
  SavedState saved{.train = {.step = state.count("step"),
                             .tokens = state.count("tokens"),
                             .cursor = state.count("cursor"),
                             .skipped = state.count("skipped"),
                             .bad_in_a_row = state.count("bad_in_a_row")},
                   .updates = state.count("updates"),
                   .model = ModelConfig::from_json(state.at("model").json(), file),
                   .run = state.text("run")};
  if (json.contains("tokenizer")) saved.tokenizer = state.text("tokenizer");
  if (json.contains("data")) saved.train.data = position_of(state.at("data"), saved.train.cursor);
  return saved;
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

void require_same_tokenizer(const std::string& saved, const DataConfig& data, std::string_view checkpoint) {
  const std::string here = hash_of_ids(data);
  if (!saved.empty() && !here.empty() && saved != here)
    throw UsageError(
        "data.train",
        fmt::format("was prepared with another tokenizer than {} was trained with: {} here, {} there",
                    printable(checkpoint, 400), printable(here, 64), printable(saved, 64)),
        "prepare it with that one, or take the weights alone by model.init");
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
