#include "dsv3/cli/engine/load_model.h"

#include <fmt/format.h>

#include "dsv3/base/error.h"
#include "dsv3/cli/engine/ranks.h"
#include "dsv3/convert/hf_folder.h"
#include "dsv3/train/trainer.h"

namespace dsv3 {

std::filesystem::path model_folder(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error))
    throw UsageError("--model", printable(path.string(), 400) + ": no such folder");
  if (std::filesystem::exists(path / "config.json", error)) return path;
  if (std::filesystem::exists(path / "hf" / "config.json", error)) return path / "hf";
  throw InputError(path.string(), "config.json", "is missing, here and in hf/",
                   "name a Hugging Face folder or a finished run");
}

LoadedModel load_model(const std::filesystem::path& path, const std::vector<std::string>& flags,
                       bool gradients) {
  LoadedModel loaded;
  loaded.folder = model_folder(path);
  loaded.run = RunConfig::from_flags(flags, ModelConfig::load(loaded.folder));
  const std::vector<int64_t> missing = HfReader(loaded.folder, loaded.run.model).missing_mtp();
  if (!missing.empty()) {
    loaded.run.model.num_nextn_predict_layers = missing.front() - 1;
  }
  set_determinism(loaded.run.train.deterministic);
  ExecOptions exec = ExecOptions::from(loaded.run);
  if (!gradients) exec.freeze = {"*"};
  const Mesh mesh = Mesh::create(loaded.run.parallel, exec.device);
  speak_on_rank_zero(mesh);
  if (!missing.empty() && mesh.rank() == 0)
    fmt::print(stderr, "dsv3: warning: {}: the weights hold no MTP module of depth {}: left out\n",
               loaded.folder.string(), missing.front());
  loaded.model = std::make_unique<Model>(loaded.run.model, mesh, exec);
  loaded.model->load(loaded.folder);
  return loaded;
}

}  // namespace dsv3
