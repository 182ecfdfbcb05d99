// dsv3 convert SRC DST, dsv3 export RUN DIR: checkpoints between Hugging Face's format and PyTorch's DCP.
#include "dsv3/convert/convert.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <map>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/partial_folder.h"

namespace dsv3 {
namespace {

// One line that is rewritten, on a terminal alone.
class ProgressLine {
 public:
  void operator()(uint64_t done, uint64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (!is_terminal_ || (done < total && now - last_ < std::chrono::milliseconds(200))) return;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double rate = static_cast<double>(done) / std::max(seconds, 1e-3);
    const auto left = static_cast<int64_t>(static_cast<double>(total - done) / std::max(rate, 1.0));
    fmt::print(stderr, "\r{:.1f} of {:.1f} GB, {:.0f} MB/s, {}:{:02} left \033[K",
               static_cast<double>(done) / 1e9, static_cast<double>(total) / 1e9, rate / 1e6, left / 60,
               left % 60);
    shown_ = true;
  }
  ~ProgressLine() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }

 private:
  const bool is_terminal_ = ::isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_;
};

template <class T>
T one_of(const std::string& flag, const std::string& value, const std::map<std::string, T>& values) {
  if (const auto found = values.find(value); found != values.end()) return found->second;
  std::string names;
  for (const auto& [name, meaning] : values) names += (names.empty() ? "" : ", ") + name;
  throw UsageError(flag, fmt::format("is '{}'", printable(value)), "one of " + names);
}

std::optional<DType> parse_dtype(const std::string& text) {
  return one_of<std::optional<DType>>("--dtype", text,
                                      {{"keep", std::nullopt},
                                       {"bf16", DType::bf16},
                                       {"fp16", DType::f16},
                                       {"fp32", DType::f32},
                                       {"fp8", DType::f8_e4m3}});
}

// "i/n" with 1 <= i <= n.
void parse_part(const std::string& text, ConvertOptions& options) {
  const char* const end = text.data() + text.size();
  const auto [slash, first] = std::from_chars(text.data(), end, options.part);
  if (first == std::errc() && slash != end && *slash == '/') {
    const auto [stop, second] = std::from_chars(slash + 1, end, options.parts);
    if (second == std::errc() && stop == end && options.part >= 1 && options.part <= options.parts) return;
  }
  throw UsageError("--part", fmt::format("is '{}'", printable(text)), "i/n with i from 1 to n");
}

int run(const std::string& source, const std::string& target, const ConvertOptions& options, bool json) {
  const auto warn = [](const std::string& text) { fmt::print(stderr, "dsv3: warning: {}\n", text); };
  // Of a run nothing is written that would have to be taken back: all of a checkpoint is read before.
  require_paths(checkpoint_folder(source), target);
  if (options.parts == 1) options.dry_run ? require_new(target) : require_new_and_tidy(target);
  const std::filesystem::path folder =
      options.dry_run ? checkpoint_folder(source, warn) : valid_checkpoint_folder(source, warn);
  ConvertSummary summary;
  {
    ProgressLine progress;
    summary = convert(folder, target, options, [&](uint64_t done, uint64_t total) { progress(done, total); });
  }
  if (summary.missing_mtp > 0)
    fmt::print(stderr,
               "dsv3: warning: {}: the weights lack {} MTP modules that config.json asks for: left out\n",
               printable(source), summary.missing_mtp);
  for (const std::string& text : summary.left_out) fmt::print(stderr, "dsv3: warning: {}: left out\n", text);
  if (json) {
    fmt::print("{}\n", Json{{"tensors", summary.tensors},
                            {"files", summary.files},
                            {"bytes", summary.bytes},
                            {"files_kept", summary.files_kept},
                            {"complete", summary.complete}}
                           .dump());
    return 0;
  }
  const char* state = options.dry_run        ? ", nothing written"
                      : summary.was_complete ? ", already complete"
                      : summary.complete     ? ""
                                             : ", other parts are not through";
  fmt::print("{}: {} tensors, {} bytes in {} files{}\n", target, summary.tensors, summary.bytes,
             summary.files, state);
  return 0;
}

}  // namespace

int convert_command(std::vector<std::string> args) {
  CLI::App app("A Hugging Face folder to a DCP folder, or back; streaming, restartable.", "dsv3 convert");
  ConvertOptions options;
  std::string source, target, to, from, dtype = "keep", part, config;
  int64_t layers = 0;
  double max_gb = 0;
  bool json = false;
  app.add_option("SRC,--input", source, "a Hugging Face folder, a DCP folder or a run folder")->required();
  app.add_option("DST,--output", target, "the folder to write; may not exist")->required();
  app.add_option("--to", to, "hf or dcp; default: the other one");
  app.add_option("--from", from,
                 "reference: SRC is a DCP folder that zigzagcai/DeepSeekV3's converter wrote");
  app.add_option("--dtype", dtype, "keep, bf16, fp16, fp32, or fp8 (hf)")->capture_default_str();
  app.add_option("--layers", layers, "the first N blocks, and the MTP modules");
  app.add_option("--part", part, "i/n: this process writes every n-th file; start all n");
  app.add_option("--config", config, "config.json of a source that holds none");
  app.add_option("--max-file-gb", max_gb, "size of a file, 5 by default");
  app.add_flag("--dry-run", options.dry_run, "check names and shapes, write nothing");
  app.add_flag("--json", json, "print JSON");
  if (!parse_args(app, args)) return 0;
  if (to.empty()) to = is_dcp_folder(checkpoint_folder(source)) ? "hf" : "dcp";
  options.to = one_of<FolderFormat>("--to", to, {{"hf", FolderFormat::hf}, {"dcp", FolderFormat::dcp}});
  if (!from.empty()) options.from_reference = one_of<bool>("--from", from, {{"reference", true}});
  options.dtype = parse_dtype(dtype);
  if (options.dtype == DType::f8_e4m3 && options.to != FolderFormat::hf)
    throw UsageError("--dtype", "is fp8, which a DCP folder does not hold", "add --to hf");
  if (app.count("--layers") > 0) {
    if (layers < 1) throw UsageError("--layers", fmt::format("is {}", layers), "at least 1");
    options.layers = layers;
  }
  if (!part.empty()) parse_part(part, options);
  if (!config.empty()) options.config = config;
  if (app.count("--max-file-gb") > 0) {
    if (!(max_gb >= 1e-9 && max_gb <= 1e6))
      throw UsageError("--max-file-gb", fmt::format("is {}", max_gb), "1e-9 to 1e6");
    options.max_file_bytes = static_cast<uint64_t>(max_gb * 1e9);
  }
  return run(source, target, options, json);
}

int export_command(std::vector<std::string> args) {
  CLI::App app("The newest valid checkpoint of a run, or a DCP folder, as a Hugging Face folder.",
               "dsv3 export");
  ConvertOptions options;
  options.to = FolderFormat::hf;
  std::string source, target, dtype = "bf16", config;
  bool json = false;
  app.add_option("RUN", source, "a run folder or a DCP folder")->required();
  app.add_option("DIR", target, "the folder to write; may not exist")->required();
  app.add_option("--dtype", dtype, "keep, bf16, fp16, fp32 or fp8")->capture_default_str();
  app.add_option("--config", config, "config.json of a source that holds none");
  app.add_flag("--json", json, "print JSON");
  if (!parse_args(app, args)) return 0;
  if (!config.empty()) options.config = config;
  options.dtype = parse_dtype(dtype);
  return run(source, target, options, json);
}

}  // namespace dsv3
