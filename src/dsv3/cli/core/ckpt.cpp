// dsv3 ckpt ls|show|verify|diff PATH: what is in a checkpoint of any format, and whether it is whole.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <map>
#include <thread>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/convert/checkpoint.h"

namespace dsv3 {
namespace {

std::string shape_of(const StoredTensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.shape, ", "));
}

Json as_json(const StoredTensor& tensor) {
  return {{"name", tensor.name},
          {"dtype", dtype_name(tensor.dtype)},
          {"shape", tensor.shape},
          {"file", tensor.file}};
}

void print_json(const Json& json) {
  fmt::print("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Checkpoint open(const std::filesystem::path& path) {
  return Checkpoint(path, [](const std::string& text) { fmt::print(stderr, "dsv3: warning: {}\n", text); });
}

int list(const std::filesystem::path& path, bool json) {
  const Checkpoint checkpoint = open(path);
  for (const auto& [name, tensor] : checkpoint.store().tensors()) {
    if (json) {
      print_json(as_json(tensor));
    } else {
      fmt::print("{:<8} {:<24} {}\n", dtype_name(tensor.dtype), shape_of(tensor), name);
    }
  }
  return 0;
}

int show(const std::filesystem::path& path, bool json) {
  const Checkpoint checkpoint = open(path);
  std::map<std::string, int64_t> elements;  // by dtype
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.store().tensors()) {
    elements[dtype_name(tensor.dtype)] += tensor.numel();
    bytes += static_cast<uint64_t>(tensor.numel() * dtype_size(tensor.dtype));
  }
  Json out = {{"path", checkpoint.path().string()},
              {"format", checkpoint.format()},
              {"tensors", checkpoint.store().tensors().size()},
              {"bytes", bytes},
              {"elements", elements},
              {"manifest", checkpoint.has_manifest()}};
  if (const auto state = checkpoint.state()) {
    for (const char* key : {"step", "tokens", "cursor", "skipped"}) out[key] = state->value(key, Json());
  }
  if (json) {
    print_json(out);
    return 0;
  }
  for (const auto& [key, value] : out.items())
    fmt::print("{:<9} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  return 0;
}

int verify(const std::filesystem::path& path, bool json) {
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const VerifyResult result = verify_checkpoint(path, threads);
  if (json) {
    Json damaged = Json::array();
    for (const Damage& damage : result.damaged)
      damaged.push_back(
          {{"file", damage.file}, {"begin", damage.begin}, {"end", damage.end}, {"what", damage.what}});
    print_json({{"path", result.path.string()},
                {"verified", result.verified},
                {"bytes", result.bytes},
                {"damaged", std::move(damaged)},
                {"unlisted", result.unlisted}});
  } else {
    if (result.damaged.empty())
      fmt::print("{}: {} bytes, {}\n", result.path.string(), result.bytes, result.verdict);
    for (const Damage& damage : result.damaged)
      fmt::print("{}: bytes {} to {}: {}\n", printable((result.path / damage.file).string(), 400),
                 damage.begin, damage.end, damage.what);
    for (const std::string& name : result.unlisted) fmt::print("{}: not in manifest.json\n", printable(name));
  }
  if (result.damaged.empty()) return 0;
  const Damage& first = result.damaged.front();
  throw InputError((result.path / first.file).string(), fmt::format("bytes {} to {}", first.begin, first.end),
                   first.what, fmt::format("{} damaged ranges in all", result.damaged.size()));
}

int diff(const std::filesystem::path& left, const std::filesystem::path& right, bool json) {
  const std::vector<Difference> differences = diff_checkpoints(open(left), open(right));
  for (const Difference& difference : differences) {
    if (json) {
      print_json({{"name", difference.name}, {"what", difference.what}});
    } else {
      fmt::print("{}: {}\n", printable(difference.name), difference.what);
    }
  }
  return differences.empty() ? 0 : 1;
}

}  // namespace

int ckpt_command(std::vector<std::string> args) {
  CLI::App app(
      "What is in a checkpoint: a Hugging Face folder, a DCP folder, one .safetensors, or a run (its "
      "newest).",
      "dsv3 ckpt");
  std::string path, other;
  bool json = false;
  app.require_subcommand(1);
  auto add = [&](const char* name, const char* help) {
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("PATH", path, "the checkpoint")->required();
    command->add_flag("--json", json, "print JSON");
    return command;
  };
  const CLI::App* ls = add("ls", "one row a tensor: dtype, shape, name");
  const CLI::App* shown = add("show", "format, size, dtypes, and where the run stood");
  const CLI::App* verified = add("verify", "reads and checks every byte; exit 3 when one is wrong");
  add("diff", "what differs: tensors, and where the run stood; exit 1 when something does")
      ->add_option("OTHER", other, "what it is compared with")
      ->required();
  if (!parse_args(app, args)) return 0;
  if (ls->parsed()) return list(path, json);
  if (shown->parsed()) return show(path, json);
  if (verified->parsed()) return verify(path, json);
  return diff(path, other, json);
}

}  // namespace dsv3
