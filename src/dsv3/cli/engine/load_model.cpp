#include "dsv3/cli/engine/load_model.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "dsv3/base/error.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/ranks.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/model_weights.h"
#include "dsv3/convert/run_folder.h"
#include "dsv3/train/trainer.h"

namespace dsv3 {

void ModelFlags::add_to(CLI::App& app) {
  app.add_option("--model", folder, "Hugging Face folder, DCP folder or run folder")->required();
  app.add_option("--config", config, "config.json of a DCP folder that holds none");
  std::string obeyed;
  for (const std::string& key : keys) {
    obeyed += fmt::format(" --{}{}", key, key.ends_with('.') ? "*" : "");
    if (key == "parallel.") app.footer(std::string(kNprocHelp) + "\n");
  }
  app.footer(app.get_footer() + "  keys of a run, listed by dsv3 config --help:" + obeyed);
}

void require_obeyed(const std::vector<std::string>& flags, const std::vector<std::string>& keys) {
  for (const std::string& flag : flags) {
    const bool obeyed = std::any_of(keys.begin(), keys.end(), [&](const std::string& key) {
      return key.ends_with('.') ? flag.starts_with(key) : flag.starts_with(key + "=");
    });
    if (!obeyed || flag.starts_with("model.init="))
      throw UsageError("--" + printable(flag.substr(0, flag.find('='))), "is no flag of this command",
                       "see --help");
  }
}

void require_folder(const std::filesystem::path& path, const std::string& flag) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error))
    throw UsageError(flag, printable(path.string(), 400) + ": no such folder");
}

namespace {

// Of the folder of the weights themselves. The mesh of the first call is that of all.
LoadedModel load_from(const std::filesystem::path& folder, const ModelFlags& model,
                      const std::vector<std::string>& flags, bool gradients, std::optional<Mesh>& mesh) {
  LoadedModel loaded;
  loaded.folder = folder;
  const bool has_config = std::filesystem::exists(loaded.folder / "config.json");
  if (model.config.empty() && !has_config && is_dcp_folder(loaded.folder))
    throw UsageError("--config", printable(loaded.folder.string(), 400) + " holds no config.json",
                     "name the model's");
  if (model.config.empty() && !has_config)
    throw InputError(model.folder, "config.json", "is missing, here and in hf/",
                     "name a Hugging Face folder, a DCP folder or a run");
  if (model.config.empty()) check_listed_file(Manifest::read(loaded.folder), loaded.folder, "config.json");
  loaded.run = RunConfig::from_flags(
      flags, ModelConfig::load(model.config.empty() ? loaded.folder : std::filesystem::path(model.config)));
  const std::vector<int64_t> missing =
      ModelWeights(loaded.folder, loaded.run.model, /*compare_copies=*/false).missing_mtp();
  if (!missing.empty()) {
    loaded.run.model.num_nextn_predict_layers = missing.front() - 1;
  }
  set_determinism(loaded.run.train.deterministic);
  ExecOptions exec = ExecOptions::from(loaded.run);
  if (!gradients) exec.freeze = {"*"};
  if (!mesh) speak_on_rank_zero(mesh.emplace(Mesh::create(loaded.run.parallel, exec.device)));
  if (!missing.empty() && mesh->rank() == 0)
    fmt::print(stderr, "dsv3: warning: {}: the weights hold no MTP module of depth {}: left out\n",
               loaded.folder.string(), missing.front());
  loaded.model = std::make_unique<Model>(loaded.run.model, *mesh, exec);
  loaded.model->load(loaded.folder);
  return loaded;
}

}  // namespace

LoadedModel load_model(const ModelFlags& model, std::vector<std::string> flags, bool gradients,
                       const std::string& dtype) {
  require_obeyed(flags, model.keys);
  if (!dtype.empty()) flags.push_back("train.dtype=" + dtype);
  require_folder(model.folder, "--model");
  LoadedModel loaded;
  std::optional<Mesh> mesh;
  with_valid_weights(
      model.folder,
      [&](const std::string& text) {
        if (!mesh || mesh->rank() == 0) fmt::print(stderr, "dsv3: warning: {}\n", text);
      },
      [&](const std::filesystem::path& folder) {
        loaded = load_from(folder, model, flags, gradients, mesh);
      });
  return loaded;
}

}  // namespace dsv3
