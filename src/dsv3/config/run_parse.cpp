// The run file and flags to a list of assignments, each with the place it came from.
#include <algorithm>
#include <set>
#include <stdexcept>

// toml++ meets some malformed text (three brackets in a row) with an assertion. The header-only form turns it
// into an exception; the system's shared library would abort.
#undef TOML_HEADER_ONLY
#undef TOML_SHARED_LIB
#define TOML_HEADER_ONLY 1
[[noreturn]] static void toml_assertion_failed(const char* condition) { throw std::logic_error(condition); }
#define TOML_ASSERT(condition) ((condition) ? void() : toml_assertion_failed(#condition))
#include <toml++/toml.h>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/config/model_fields.h"
#include "dsv3/config/run_keys.h"

namespace dsv3 {
namespace {

Json to_json(const toml::node& node, const std::string& where) {
  if (const auto* table = node.as_table()) {
    Json object = Json::object();
    for (const auto& [key, value] : *table) object[std::string(key.str())] = to_json(value, where);
    return object;
  }
  if (const auto* array = node.as_array()) {
    Json list = Json::array();
    for (const auto& value : *array) list.push_back(to_json(value, where));
    return list;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  throw UsageError(where, "dates and times are no values here");
}

std::vector<std::string> all_names() {
  std::vector<std::string> names = {"model.config", "model.preset"};
  for (const RunKey& key : run_keys()) names.push_back(key.name);
  for (const std::string& key : known_model_keys()) names.push_back("model." + key);
  return names;
}

void check_known(const std::string& key, const std::string& where) {
  const auto names = all_names();
  const auto known = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  // model.rope_scaling.factor: keys inside one of the model's tables are config.json's business.
  const size_t second = key.starts_with("model.") ? key.find('.', 6) : std::string::npos;
  if (known(key) || (second != std::string::npos && known(key.substr(0, second)))) return;
  throw UsageError(where, "unknown key", "did you mean " + nearest(key, names) + "?");
}

std::string one_line(std::string_view text) {
  std::string line(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return printable(line);
}

toml::table parse_toml(std::string_view text, const std::string& name) {
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    throw UsageError(printable(name, 400) + ":" + std::to_string(error.source().begin.line),
                     one_line(error.description()));
  } catch (const std::logic_error&) {
    throw UsageError(printable(name, 400), "is not valid TOML");
  }
}

// A flag's text as a TOML value; a bare word is a string.
Json flag_value(const std::string& text, bool plain, const std::string& where) {
  const bool quoted = text.starts_with('"') || text.starts_with('\'');
  if (plain && !quoted) return text;
  try {
    const toml::table table = toml::parse("value = " + text);
    if (table.size() == 1) return to_json(*table.get("value"), where);
  } catch (const toml::parse_error&) {
  } catch (const std::logic_error&) {
  }
  return text;
}

bool is_utf8(const std::string& text) {
  try {
    Json(text).dump();
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

}  // namespace

std::vector<Entry> parse_run_file(const std::filesystem::path& file) {
  const std::string name = file.string();
  std::error_code error;
  if (!std::filesystem::exists(file, error)) throw UsageError(printable(name, 400), "no such file");
  if (!std::filesystem::is_regular_file(file, error))
    throw UsageError(printable(name, 400), "is no regular file");
  const toml::table root = parse_toml(read_text(file, 1 << 20), name);

  std::vector<Entry> entries;
  for (const auto& [section, node] : root) {
    const std::string at = printable(name, 400) + ":" + std::to_string(section.source().begin.line);
    const std::string section_name(section.str());
    const toml::table* table = node.as_table();
    if (!table) check_known(section_name, at + ": " + printable(section_name));
    if (!table) continue;
    for (const auto& [key, value] : *table) {
      Entry entry;
      entry.key = section_name + "." + std::string(key.str());
      entry.origin = printable(name, 400) + ":" + std::to_string(key.source().begin.line);
      entry.where = entry.origin + ": " + printable(entry.key);
      check_known(entry.key, entry.where);
      entry.value = to_json(value, entry.where);
      entry.folder = file.parent_path();
      entries.push_back(std::move(entry));
    }
    if (table->empty()) {
      const auto names = all_names();
      const bool known = std::any_of(names.begin(), names.end(),
                                     [&](const auto& key) { return key.starts_with(section_name + "."); });
      if (!known) throw UsageError(at + ": " + printable(section_name), "unknown section");
    }
  }
  return entries;
}

std::vector<Entry> parse_flags(const std::vector<std::string>& flags) {
  std::vector<Entry> entries;
  std::set<std::string> seen;
  for (const std::string& flag : flags) {
    const size_t equals = flag.find('=');
    Entry entry;
    entry.key = flag.substr(0, equals);
    entry.origin = "flag";
    entry.where = "--" + printable(entry.key);
    entry.flag = true;
    check_known(entry.key, entry.where);
    if (equals == std::string::npos) throw UsageError(entry.where, "needs a value");
    if (!seen.insert(entry.key).second) throw UsageError(entry.where, "given twice");
    const std::string text = flag.substr(equals + 1);
    if (!is_utf8(text)) throw UsageError(entry.where, printable(text) + " is not UTF-8");
    const RunKey* key = find_run_key(entry.key);
    const bool plain =
        key ? takes_plain_text(*key) : entry.key == "model.config" || entry.key == "model.preset";
    entry.value = flag_value(text, plain, entry.where);
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace dsv3
