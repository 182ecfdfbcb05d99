#include "dsv3/checkpoint/train_state.h"

#include <fmt/format.h>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr const char* kField = "dsv3.state";

// The fields that the program reads, without what config.json carries beside them.
Json fields(ModelConfig model) {
  model.source = Json::object();
  return model.to_json();
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

void require_same_model(const ModelConfig& saved, const ModelConfig& model, std::string_view checkpoint) {
  const Json theirs = fields(saved), ours = fields(model);
  std::string differences;
  auto compare = [&](const std::string& key, const Json& a, const Json& b) {
    if (a != b)
      differences +=
          fmt::format("{}{} {} there, {} here", differences.empty() ? "" : "; ", key, a.dump(), b.dump());
  };
  for (const auto& [key, value] : ours.items()) compare(key, theirs.value(key, Json()), value);
  for (const auto& [key, value] : theirs.items())
    if (!ours.contains(key)) compare(key, value, Json());
  if (!differences.empty())
    throw UsageError(printable(checkpoint), "is of another model: " + printable(differences, 1000),
                     "resume with the model that was trained, or take its weights alone by model.init");
}

}  // namespace dsv3
