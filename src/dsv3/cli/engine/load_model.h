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
  std::string folder;  // Hugging Face folder, DCP folder, or run: its newest checkpoint that opens, else hf/
  std::string config;  // config.json of a DCP folder that holds none
  void add_to(CLI::App& app);
};
// The folder of the weights themselves. UsageError when nothing is there.
std::filesystem::path model_folder(const std::filesystem::path& path);

struct LoadedModel {
  std::filesystem::path folder;
  RunConfig run;  // of the flags, over the folder's config.json
  std::unique_ptr<Model> model;
};

// flags: "section.key=value". An MTP module none of whose tensors is in the weights is left out with a
// warning.
// gradients: room for them; without, every parameter is frozen and inference holds the weights alone.
LoadedModel load_model(const ModelFlags& model, const std::vector<std::string>& flags,
                       bool gradients = false);

}  // namespace dsv3
