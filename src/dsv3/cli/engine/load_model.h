#pragma once
// --model DIR of eval, generate and trace.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dsv3/parallel/model.h"

namespace dsv3 {

// A Hugging Face folder, or a run folder's hf/. UsageError when nothing is there, InputError when it holds no
// model.
std::filesystem::path model_folder(const std::filesystem::path& path);

struct LoadedModel {
  std::filesystem::path folder;
  RunConfig run;  // of the flags, over the folder's config.json
  std::unique_ptr<Model> model;
};

// flags: "section.key=value". An MTP module none of whose tensors is in the weights is left out with a
// warning.
// gradients: room for them; without, every parameter is frozen and inference holds the weights alone.
LoadedModel load_model(const std::filesystem::path& path, const std::vector<std::string>& flags,
                       bool gradients = false);

}  // namespace dsv3
