#pragma once
// The one table of a run's keys. Parsing, flags, limits, help, origins and to_toml read it. Private to this
// room.

#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dsv3/config/run_config.h"

namespace dsv3 {

// Where a key's value lives. OptimConfig stands for betas: two members under one key.
template <class T>
using Access = T& (*)(RunConfig&);
using Field = std::variant<Access<bool>, Access<int64_t>, Access<uint64_t>, Access<double>,
                           Access<std::string>, Access<std::vector<std::string>>,
                           Access<std::vector<DataSource>>, Access<Schedule>, Access<OptimConfig>>;

enum class PathKind {
  none,
  named,
  prefix,
  output
};  // named and prefix must exist (prefix: with .idx appended)

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

struct RunKey {
  const char* name;  // section.key
  Field field;
  const char* help;
  double min = -kNoLimit;  // of a number, or of a schedule's values
  double max = kNoLimit;
  bool open = false;              // min and max themselves are refused
  const char* choices = nullptr;  // of a string, "a|b|c"; "every:N" stands for any N >= 1
  PathKind path = PathKind::none;
  const char* words = nullptr;  // values of a path key that are no path
};

std::span<const RunKey> run_keys();
const RunKey* find_run_key(std::string_view name);  // nullptr when absent

// Sets the key's field. UsageError at `where` on a wrong type or an impossible value. folder: relative paths
// start there.
void set_value(const RunKey& key, const Json& value, const std::string& where,
               const std::filesystem::path& folder, RunConfig& run);
Json get_value(const RunKey& key, const RunConfig& run);
// What set_value expects, for messages and help: "a number", "none|document", …
std::string expected_value(const RunKey& key);
// Whether the text of a flag is the value itself (a string), not TOML.
bool takes_plain_text(const RunKey& key);
// The path strings that the key holds now, words left out.
std::vector<std::string> path_values(const RunKey& key, const RunConfig& run);

// One assignment from the run file or a flag.
struct Entry {
  std::string key;
  Json value;
  std::string where;   // "run.toml:7: optim.lr" or "--optim.lr"
  std::string origin;  // "run.toml:7" or "flag"
  std::filesystem::path folder;
  bool flag = false;
};
std::vector<Entry> parse_run_file(const std::filesystem::path& file);
std::vector<Entry> parse_flags(const std::vector<std::string>& flags);

// The entries under model. (init aside) over base, config or preset; fills run.model and its origins.
void resolve_model(const std::vector<Entry>& entries, const std::optional<ModelConfig>& base, RunConfig& run);

// Combinations of values that cannot run. where: of each key that was set.
void check_run(const RunConfig& run, const std::map<std::string, std::string>& where);

}  // namespace dsv3
