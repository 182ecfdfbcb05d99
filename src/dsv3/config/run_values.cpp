// Values of a run's keys: from JSON with checks, and back.
#include <fmt/format.h>

#include <cmath>

#include "dsv3/base/error.h"
#include "dsv3/config/model_fields.h"
#include "dsv3/config/run_keys.h"

namespace dsv3 {
namespace {

std::string range_text(const RunKey& key) {
  const char* at_least = key.open ? " > " : " >= ";
  if (key.max == kNoLimit || key.max > 1e15)
    return key.min == -kNoLimit ? "" : at_least + fmt::format("{}", key.min);
  return fmt::format(" from {} to {}", key.min, key.max);
}

std::vector<std::string> split_choices(const char* choices) {
  std::vector<std::string> all;
  std::string_view rest = choices;
  while (true) {
    const size_t bar = rest.find('|');
    all.emplace_back(rest.substr(0, bar));
    if (bar == std::string_view::npos) return all;
    rest.remove_prefix(bar + 1);
  }
}

bool is_choice(const std::string& value, const char* choices) {
  for (const std::string& choice : split_choices(choices)) {
    if (value == choice && choice != "every:N") return true;
    if (choice != "every:N" || !value.starts_with("every:")) continue;
    const std::string count = value.substr(6);
    const bool digits =
        !count.empty() && count.size() < 10 && count.find_first_not_of("0123456789") == std::string::npos;
    if (digits && count[0] != '0') return true;
  }
  return false;
}

// One value's way in: `key` for its limits, `where` for errors.
struct Reader {
  const RunKey& key;
  const std::string& where;
  const std::filesystem::path& folder;

  [[noreturn]] void wrong(const Json& value, const std::string& hint = {}) const {
    throw UsageError(where, shown(value) + ", expected " + expected_value(key), hint);
  }

  double number(const Json& value, const RunKey& limits) const {
    if (!value.is_number()) wrong(value);
    const double number = value.get<double>();
    const bool inside = limits.open ? number > limits.min && number < limits.max
                                    : number >= limits.min && number <= limits.max;
    if (!std::isfinite(number) || !inside) {
      throw UsageError(where, fmt::format("{}, expected {}", number, expected_value(key)));
    }
    return number;
  }
  double weight(const Json& value, const std::string& path) const {
    const double weight = value.is_number() ? value.get<double>() : 0;
    if (std::isfinite(weight) && weight > 0) return weight;
    throw UsageError(where, fmt::format("{}: weight {}, expected a number > 0", printable(path),
                                        value.is_number() ? fmt::format("{}", weight) : shown(value)));
  }
  int64_t integer(const Json& value) const {
    if (!value.is_number_integer()) {
      const bool whole = value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>();
      wrong(value, whole ? "write an integer without point or exponent" : "");
    }
    number(value, key);
    return value.get<int64_t>();
  }
  std::string path(const std::string& text) const {
    if (text.empty() || (key.words && text == key.words)) return text;
    return (folder / text).lexically_normal().string();
  }

  void read(const Json& value, bool& out) const {
    if (!value.is_boolean()) wrong(value);
    out = value.get<bool>();
  }
  void read(const Json& value, int64_t& out) const { out = integer(value); }
  void read(const Json& value, uint64_t& out) const { out = static_cast<uint64_t>(integer(value)); }
  void read(const Json& value, double& out) const { out = number(value, key); }
  void read(const Json& value, std::string& out) const {
    if (!value.is_string()) wrong(value);
    out = value.get<std::string>();
    if (key.choices && !is_choice(out, key.choices)) {
      std::string hint;
      if (out.size() < 40) hint = "did you mean " + nearest(out, split_choices(key.choices)) + "?";
      wrong(value, hint);
    }
    if (key.path != PathKind::none) out = path(out);
  }
  void read(const Json& value, std::vector<std::string>& out) const {
    out.clear();
    for (const Json& item : value.is_array() ? value : Json::array({value})) {
      if (!item.is_string()) wrong(item);
      out.push_back(item.get<std::string>());
    }
  }
  void read(const Json& value, std::vector<DataSource>& out) const {
    out.clear();
    for (const Json& item : value.is_array() ? value : Json::array({value})) {
      DataSource source;
      if (item.is_string()) {
        source.path = item.get<std::string>();
      } else if (item.is_object() && item.contains("path") && item["path"].is_string()) {
        source.path = item["path"].get<std::string>();
        if (item.size() != (item.contains("weight") ? 2 : 1)) wrong(item);
        if (item.contains("weight")) source.weight = weight(item["weight"], source.path);
      }
      if (source.path.empty()) wrong(item);
      source.path = path(source.path);
      out.push_back(source);
    }
  }
  void read(const Json& value, Schedule& out) const {
    out = {};
    if (!value.is_array()) wrong(value);
    for (const Json& item : value) {
      if (!item.is_object() || !item.contains("value") || item.contains("steps") == item.contains("tokens"))
        wrong(item);
      if (item.size() != (item.contains("shape") ? 3 : 2)) wrong(item);
      const bool by_steps = item.contains("steps");
      const Json& at = item[by_steps ? "steps" : "tokens"];
      SchedulePoint point;
      if (!at.is_number()) wrong(at);
      point.at = at.get<double>();
      point.value = number(item["value"], key);
      const Json shape = item.value("shape", Json("step"));
      if (shape != "step" && shape != "linear" && shape != "cosine") wrong(shape);
      point.shape = shape.get<std::string>();
      if (!out.points.empty() && by_steps != out.by_steps) wrong(value, "tokens or steps, not both");
      if (!std::isfinite(point.at) || point.at < 0 ||
          (!out.points.empty() && point.at <= out.points.back().at)) {
        wrong(value, "tokens or steps must be >= 0 and ascend");
      }
      out.by_steps = by_steps;
      out.points.push_back(point);
    }
  }
  void read(const Json& value, OptimConfig& out) const {
    if (!value.is_array() || value.size() != 2) wrong(value);
    out.beta1 = number(value[0], key);
    out.beta2 = number(value[1], key);
    if (out.beta1 >= 1 || out.beta2 >= 1) wrong(value);
  }
};

Json to_json(const OptimConfig& optim) { return {optim.beta1, optim.beta2}; }
Json to_json(const Schedule& schedule) {
  Json points = Json::array();
  for (const SchedulePoint& point : schedule.points) {
    points.push_back(
        {{schedule.by_steps ? "steps" : "tokens", point.at}, {"value", point.value}, {"shape", point.shape}});
  }
  return points;
}
Json to_json(const std::vector<DataSource>& sources) {
  Json list = Json::array();
  for (const DataSource& source : sources) {
    list.push_back({{"path", source.path}});
    if (source.weight) list.back()["weight"] = *source.weight;
  }
  return list;
}
template <class T>
Json to_json(const T& value) {
  return value;
}

std::string type_text(const RunKey& key, Access<bool>) { return "true or false" + range_text(key); }
std::string type_text(const RunKey& key, Access<int64_t>) { return "an integer" + range_text(key); }
std::string type_text(const RunKey& key, Access<uint64_t>) { return "an integer" + range_text(key); }
std::string type_text(const RunKey& key, Access<double>) { return "a number" + range_text(key); }
std::string type_text(const RunKey& key, Access<std::string>) {
  if (key.choices) return key.choices;
  if (key.path == PathKind::none) return "a string";
  return key.words ? fmt::format("a path or \"{}\"", key.words) : "a path";
}
std::string type_text(const RunKey&, Access<std::vector<std::string>>) { return "a list of strings"; }
std::string type_text(const RunKey&, Access<std::vector<DataSource>>) { return "a path or [{path, weight}]"; }
std::string type_text(const RunKey& key, Access<Schedule>) {
  return "[{tokens or steps, value" + range_text(key) + ", shape = step|linear|cosine}]";
}
std::string type_text(const RunKey&, Access<OptimConfig>) { return "two numbers >= 0 and < 1"; }

}  // namespace

std::string expected_value(const RunKey& key) {
  return std::visit([&](auto access) { return type_text(key, access); }, key.field);
}

bool takes_plain_text(const RunKey& key) { return std::holds_alternative<Access<std::string>>(key.field); }

void set_value(const RunKey& key, const Json& value, const std::string& where,
               const std::filesystem::path& folder, RunConfig& run) {
  std::visit([&](auto access) { Reader{key, where, folder}.read(value, access(run)); }, key.field);
}

Json get_value(const RunKey& key, const RunConfig& run) {
  // The table's accessors take a mutable run; nothing is written here.
  auto& fields = const_cast<RunConfig&>(run);
  return std::visit([&](auto access) { return to_json(access(fields)); }, key.field);
}

std::vector<std::string> path_values(const RunKey& key, const RunConfig& run) {
  std::vector<std::string> paths;
  if (key.path == PathKind::none) return paths;
  const Json value = get_value(key, run);
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    if (!text.empty() && !(key.words && text == key.words)) paths.push_back(text);
  } else {
    for (const Json& source : value) paths.push_back(source["path"].get<std::string>());
  }
  return paths;
}

}  // namespace dsv3
