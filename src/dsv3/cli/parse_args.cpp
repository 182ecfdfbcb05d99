#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "dsv3/base/error.h"
#include "dsv3/cli/command.h"
#include "dsv3/config/run_config.h"

namespace dsv3 {

bool parse_args(CLI::App& app, std::vector<std::string> args) {
  std::vector<std::string> names;
  for (CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    if (option->get_expected_max() == 0)
      option->multi_option_policy(CLI::MultiOptionPolicy::Throw);  // no twice
  }
  app.allow_extras();
  std::reverse(args.begin(), args.end());  // CLI11 takes them from the back
  try {
    app.parse(args);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return false;
  } catch (const CLI::ParseError& error) {
    // An unknown flag explains more than the argument that seems to be missing because of it.
    if (app.remaining().empty()) throw UsageError(app.get_name(), printable(error.what()), "see --help");
  }
  if (app.remaining().empty()) return true;
  const std::string first = app.remaining()[0];
  if (!first.starts_with('-')) throw UsageError(printable(first), "unexpected argument", "see --help");
  const std::string name = first.substr(0, first.find('='));
  throw UsageError(printable(name), "unknown flag", "did you mean " + nearest(name, names) + "?");
}

std::function<std::string(const std::string&)> at_least(int64_t low) {
  return [low](const std::string& text) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= low) return std::string();
    return printable(text) + ", expected an integer of " + std::to_string(low) + " or more";
  };
}

}  // namespace dsv3
