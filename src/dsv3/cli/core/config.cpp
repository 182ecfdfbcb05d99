// dsv3 config show|check RUN.toml: the resolved values with their origin; whether a run could start.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "dsv3/base/error.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/config/param_table.h"
#include "dsv3/config/run_config.h"
#include "dsv3/data/loader.h"

namespace dsv3 {
namespace {

void show_text(const std::vector<RunConfig::Value>& values) {
  size_t width = 0;
  for (const auto& value : values) width = std::max(width, value.key.size() + value.value.dump().size() + 3);
  width = std::min<size_t>(width, 60);
  for (const auto& value : values) {
    const std::string line = value.key + " = " + value.value.dump();
    fmt::print("{:{}}  # {}\n", line, width, value.origin);
  }
}

void show_json(const std::vector<RunConfig::Value>& values) {
  Json out = Json::object();
  for (const auto& value : values) {
    out[value.key] = {{"value", value.value}, {"origin", value.origin}};
  }
  fmt::print("{}\n", out.dump(2));
}

void check(const RunConfig& run, const std::string& file, bool json) {
  run.check_paths();
  SampleStream::open(run, /*valid=*/false);
  if (!run.data.valid.empty()) SampleStream::open(run, /*valid=*/true);
  const int64_t main = num_params(run.model, false), all = num_params(run.model, true);
  const int64_t active = num_active_params(run.model);
  if (json) {
    fmt::print(
        "{}\n",
        Json{{"ok", true}, {"parameters", main}, {"mtp_parameters", all - main}, {"active", active}}.dump());
  } else {
    fmt::print("{}: ok, {} parameters, {} a token, {} more in MTP modules\n", file, main, active, all - main);
  }
}

}  // namespace

int config_command(std::vector<std::string> args) {
  const std::vector<std::string> flags = take_run_flags(args);
  CLI::App app("A run's values and where they come from.", "dsv3 config");
  std::string action, file;
  bool json = false;
  app.add_option("ACTION", action, "show: every value with its origin. check: could this run start?")
      ->required()
      ->check(CLI::IsMember({"show", "check"}));
  app.add_option("RUN.toml", file, "the run file")->required();
  app.add_flag("--json", json, "print JSON");
  app.footer("Keys of a run, in its file or as flags:\n" + run_keys_help() +
             "  --model.config, --model.preset, --model.FIELD  the model: a config.json or a preset, and its "
             "fields");
  if (!parse_args(app, args)) return 0;

  const RunConfig run = RunConfig::load(file, flags);
  if (action == "check") {
    check(run, file, json);
  } else if (json) {
    show_json(run.resolved());
  } else {
    show_text(run.resolved());
  }
  return 0;
}

}  // namespace dsv3
