#pragma once
// --model DIR of eval, generate and trace.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dsv3/parallel/model.h"

namespace CLI {
class App;
}

namespace dsv3 {

// --model and --config of a command.
struct ModelFlags {
  // Hugging Face folder, DCP folder, or run: its newest valid checkpoint, else hf/
  std::string folder = {};
  std::string config = {};        // config.json of a DCP folder that holds none
  std::vector<std::string> keys;  // keys of a run, or "section.", that the command obeys
  void add_to(CLI::App& app);     // keys go into its help
};
// UsageError for a run flag ("section.key=value") that is none of the keys which a command obeys; "parallel."
// stands for a section.
void require_obeyed(const std::vector<std::string>& flags, const std::vector<std::string>& keys);
// UsageError naming the flag when there is no folder.
void require_folder(const std::filesystem::path& path, const std::string& flag);

struct LoadedModel {
  std::filesystem::path folder;
  RunConfig run;  // of the flags, over the folder's config.json
  std::unique_ptr<Model> model;
};

// flags: "section.key=value"; UsageError for one that the command does not obey. An MTP module none of whose
// tensors is in the weights is left out with a warning. gradients: room for them; without, every parameter is
// frozen and inference holds the weights alone. dtype: train.dtype of a command with a flag of its own for
// it.
LoadedModel load_model(const ModelFlags& model, std::vector<std::string> flags, bool gradients = false,
                       const std::string& dtype = "");

}  // namespace dsv3
