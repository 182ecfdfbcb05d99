#pragma once
// Training goes on from a checkpoint, on any mesh.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "dsv3/checkpoint/train_state.h"
#include "dsv3/optim/optimizer.h"

namespace dsv3 {

// Fills weights, router biases, moments and Adam's t. Every byte that is used is checked, and on rank 0 what
// no rank needs. InputError: the folder is damaged, lacks a tensor, or holds none of our training states.
// UsageError: another model. All ranks call it; an error of one is thrown by all, with the model half filled.
SavedState load_checkpoint(Model& model, Optimizer& optimizer, const std::filesystem::path& folder);

struct Resumed {
  std::filesystem::path folder;
  TrainState train;
};
// What checkpoint.resume asks for: "auto" is the newest checkpoint of the run folder that loads, nothing when
// there is none; a path is a checkpoint, or the newest that loads of a run. Those that do not load are named
// by warn (on every rank). InputError when there are some and none loads.
std::optional<Resumed> resume(Model& model, Optimizer& optimizer, const RunConfig& run,
                              const std::function<void(const std::string&)>& warn);

}  // namespace dsv3
