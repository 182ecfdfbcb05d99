#include "dsv3/convert/convert.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/convert/checked_file.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/convert_output.h"
#include "dsv3/convert/dcp_writer.h"
#include "dsv3/convert/partial_folder.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxCompanion = 64u << 20;

// What makes two conversions the same: source files by name, size and time, and every option but the part.
std::string identity_of(const fs::path& source, const ModelConfig& config, const ConvertOptions& options) {
  Json files = Json::array();
  for (const auto& entry : fs::directory_iterator(source)) {
    const std::string name = entry.path().filename().string();
    const bool of_weights = name.ends_with(".safetensors") || name.ends_with(".distcp") ||
                            name == ".metadata" || name.ends_with(".index.json");
    const auto stamp = of_weights ? file_stamp(entry.path()) : std::nullopt;
    if (stamp) files.push_back({name, stamp->size, stamp->seconds, stamp->nanoseconds});
  }
  std::sort(files.begin(), files.end());  // nlohmann's iterators are none of std::ranges
  return Json{{"source", fs::canonical(source).string()},
              {"files", std::move(files)},
              {"to", options.to == FolderFormat::hf ? "hf" : "dcp"},
              {"dtype", options.dtype ? dtype_name(*options.dtype) : "keep"},
              {"layers", options.layers.value_or(0)},
              {"from_reference", options.from_reference},
              {"config", config.to_json()},
              {"max_file_bytes", options.max_file_bytes}}
      .dump();
}

// Tokenizer, its code, generation settings and licences travel along; weights, what describes them and what
// is hidden are of the source alone.
bool is_of_source(const std::string& name) {
  const std::string type = fs::path(name).extension().string();
  return name.starts_with(".") || name == "config.json" || name == kManifestName || name == "run.toml" ||
         name.ends_with(".index.json") || type == ".safetensors" || type == ".distcp";
}

bool is_companion(const std::string& name) {
  constexpr std::string_view kTypes[] = {".json", ".txt", ".model", ".tiktoken", ".jinja", ".md", ".py"};
  const std::string type = fs::path(name).extension().string();
  return std::ranges::find(kTypes, type) != std::end(kTypes) || name.starts_with("LICENSE");
}

// Returns a sentence for each file that is neither of the source alone nor carried over: it is too large, a
// link leads to it outside of the folder, or nobody knows what it is for.
std::vector<std::string> copy_companions(const fs::path& source, const fs::path& folder) {
  std::vector<std::string> left_out;
  std::error_code error;
  const std::optional<Manifest> manifest = Manifest::read(source);
  // Does not travel, but damage is said wherever it is.
  if (fs::exists(source / kConversionName)) check_listed_file(manifest, source, kConversionName);
  for (const auto& entry : fs::directory_iterator(source)) {
    const std::string name = entry.path().filename().string();
    if (is_of_source(name)) continue;
    if (fs::is_directory(entry.path(), error)) {
      left_out.push_back(printable(entry.path().string(), 400) + " is a folder");
    } else if (!is_companion(name)) {
      left_out.push_back(printable(entry.path().string(), 400) + " is of no kind that a model needs");
    } else if (!lies_in_folder(source, name)) {
      left_out.push_back(printable(entry.path().string(), 400) + " is a link to no file of the folder");
    } else if (entry.is_regular_file() && entry.file_size() > kMaxCompanion) {
      left_out.push_back(fmt::format("{} has {} bytes, at most {} are carried over",
                                     printable(entry.path().string(), 400), entry.file_size(),
                                     kMaxCompanion));
    } else if (entry.is_regular_file()) {
      check_listed_file(manifest, source, name);
      write_atomically(folder / name, read_text(entry.path(), kMaxCompanion));
    }
  }
  return left_out;
}

}  // namespace

void require_paths(const fs::path& source, const fs::path& target) {
  std::error_code error;
  if (!fs::is_directory(source, error))
    throw UsageError(printable(source.string(), 400), "is no folder",
                     "name the folder that holds the checkpoint");
  if (target.empty()) throw UsageError("the folder to write", "has no name", "name a new folder");
  const fs::path from = fs::weakly_canonical(source, error);
  fs::path to = fs::weakly_canonical(target, error);
  if (!to.has_filename()) to = to.parent_path();
  if (from == to.string() + ".partial")
    throw UsageError(printable(target.string(), 400), "would be built in the source", "name another folder");
  const bool inside = std::ranges::mismatch(from, to).in1 == from.end();
  if (inside)
    throw UsageError(printable(target.string(), 400), "is the source, or in it",
                     "name a folder outside of it");
}

ConvertSummary convert(const fs::path& path, const fs::path& target, const ConvertOptions& options,
                       const ConvertProgress& progress) {
  const fs::path folder = checkpoint_folder(path);
  require_paths(folder, target);
  const ConvertSource source(folder, options);
  const auto dtype_of = [&](const ParamSpec& spec) {
    return options.dtype ? hf_stored_dtype(spec, *options.dtype) : source.dtype(spec);
  };
  const bool to_hf = options.to == FolderFormat::hf;
  ConvertSummary summary{.missing_mtp = source.missing_mtp()};
  std::vector<OutputFile> files;
  std::vector<HfShard> shards;
  if (to_hf) {
    shards = plan_hf_folder(source.table(), source.config(), dtype_of, options.max_file_bytes);
    files = plan_hf_output(source, shards);
    for (const HfShard& shard : shards) summary.tensors += static_cast<int64_t>(shard.entries().size());
  } else {
    files = plan_dcp_output(source, dtype_of, options.max_file_bytes);
    for (const ParamSpec& spec : source.table().params)
      summary.tensors += static_cast<int64_t>(dcp_keys(spec, source.config()).size());
  }
  summary.files = static_cast<int64_t>(files.size());
  for (const OutputFile& file : files) summary.bytes += file.bytes;
  const std::string identity = identity_of(folder, source.config(), options);
  // A part that is started again, after the others had all they needed of it.
  if (options.parts > 1 && is_result_of(target, identity)) {
    summary.complete = summary.was_complete = true;
    return summary;
  }
  if (options.dry_run) {
    require_new(target);
    return summary;
  }
  const PartialFolder partial(target, identity);
  std::vector<std::string> names;
  std::vector<const OutputFile*> mine;
  uint64_t total = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    names.push_back(files[i].name);
    if (static_cast<int64_t>(i) % options.parts != options.part - 1) continue;
    partial.claim(static_cast<int64_t>(i));
    if (partial.has(files[i].name)) {
      ++summary.files_kept;
      continue;
    }
    mine.push_back(&files[i]);
    total += files[i].bytes;
  }
  Meter meter(total, progress);
  for (const OutputFile* file : mine)
    partial.record(file->name, file->write(partial.path() / file->name, meter));

  summary.complete = partial.complete(names, [&](DcpPart&& whole) {
    summary.left_out = copy_companions(folder, partial.path());
    const DType dtype = options.dtype.value_or(source.dtype(source.table().params.front()));
    write_atomically(partial.path() / "config.json", hf_config_json(source.config(), dtype).dump(2) + "\n");
    if (!to_hf) return finish_dcp_folder(partial.path(), std::move(whole));
    if (shards.size() > 1)
      write_atomically(partial.path() / "model.safetensors.index.json", hf_index_text(shards));
    write_manifest(partial.path(), std::move(whole.files));
  });
  return summary;
}

}  // namespace dsv3
