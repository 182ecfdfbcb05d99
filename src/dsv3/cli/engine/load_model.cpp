#include "dsv3/cli/engine/load_model.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "dsv3/base/error.h"
#include "dsv3/checkpoint/resume.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/ranks.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/model_weights.h"
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

// What the flags say, over the config.json of --config or of the folder.
RunConfig run_of(const std::filesystem::path& folder, const ModelFlags& model,
                 const std::vector<std::string>& flags) {
  if (!model.config.empty()) return RunConfig::from_flags(flags, ModelConfig::load(model.config));
  if (!std::filesystem::exists(folder / "config.json")) {
    if (is_dcp_folder(folder))
      throw UsageError("--config", printable(folder.string(), 400) + " holds no config.json",
                       "name the model's");
    throw InputError(model.folder, "config.json", "is missing, here and in hf/",
                     "name a Hugging Face folder, a DCP folder or a run");
  }
  check_listed_file(Manifest::read(folder), folder, "config.json");
  return RunConfig::from_flags(flags, ModelConfig::load(folder));
}

LoadedModel load_from(const std::filesystem::path& folder, bool is_checkpoint, const ModelFlags& model,
                      const std::vector<std::string>& flags, bool gradients, const Mesh& mesh) {
  LoadedModel loaded;
  loaded.folder = folder;
  std::vector<int64_t> missing;
  on_all_ranks(mesh, [&] {
    if (is_checkpoint) require_manifest(folder);
    loaded.run = run_of(folder, model, flags);
    missing = ModelWeights(folder, loaded.run.model, /*compare_copies=*/false).missing_mtp();
  });
  if (!missing.empty()) loaded.run.model.num_nextn_predict_layers = missing.front() - 1;
  ExecOptions exec = ExecOptions::from(loaded.run);
  if (!gradients) exec.freeze = {"*"};
  if (!missing.empty() && mesh.rank() == 0)
    fmt::print(stderr, "dsv3: warning: {}: the weights hold no MTP module of depth {}: left out\n",
               folder.string(), missing.front());
  loaded.model = std::make_unique<Model>(loaded.run.model, mesh, exec);
  loaded.model->load(folder);
  return loaded;
}

}  // namespace

LoadedModel load_model(const ModelFlags& model, std::vector<std::string> flags, bool gradients,
                       const std::string& dtype) {
  require_obeyed(flags, model.keys);
  if (!dtype.empty()) flags.push_back("train.dtype=" + dtype);
  require_folder(model.folder, "--model");
  // How the ranks stand is the flags' alone, which are read over a model: any of the run's. Then they agree
  // on the folders.
  const RunConfig layout = run_of(checkpoint_folder(model.folder), model, flags);
  set_determinism(layout.train.deterministic);
  const Mesh mesh = Mesh::create(layout.parallel, ExecOptions::from(layout).device);
  speak_on_rank_zero(mesh);
  LoadedModel loaded;
  use_first_valid(
      model.folder, agreed_steps(mesh, [&] { return weight_steps(model.folder); }),
      [&](const std::string& text) {
        if (mesh.rank() == 0) fmt::print(stderr, "dsv3: warning: {}\n", text);
      },
      [&](const std::filesystem::path& folder, bool is_checkpoint) {
        loaded = load_from(folder, is_checkpoint, model, flags, gradients, mesh);
      });
  return loaded;
}

}  // namespace dsv3
