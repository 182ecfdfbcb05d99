#pragma once
// Training goes on from a checkpoint, on any mesh.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/checkpoint/train_state.h"
#include "dsv3/optim/optimizer.h"

namespace dsv3 {

// Fills weights, router biases, moments and Adam's t. Every byte that is used is checked, and on rank 0 what
// no rank needs. InputError: the folder is damaged, lacks a tensor, or holds none of our training states.
// UsageError: another model, or parameters that were frozen there. All ranks call it; an error of one is
// thrown by all, with the model half filled.
SavedState load_checkpoint(Model& model, Optimizer& optimizer, const std::filesystem::path& folder);

// What rank 0's list() says, on every rank: another rank may see a checkpoint that is renamed just now.
std::vector<int64_t> agreed_steps(const Mesh& mesh, const std::function<std::vector<int64_t>()>& list);

struct Resumed {
  std::filesystem::path folder;
  TrainState train;
  std::string tokenizer;  // SavedState's
};
// What checkpoint.resume asks for: "auto" is the newest valid checkpoint of the run folder, nothing when
// there is none; a path is a checkpoint, or a run with its newest valid one. Valid: it has a manifest, every
// byte is what the manifest says, and it loads. Those that are not are named by warn (on every rank), and so
// is what the run does otherwise than the saved one. What keeps one from being looked at (a permission,
// memory) is thrown: it may be a good one. A checkpoint named by itself may lack a manifest; that
// is told. InputError when there are some and none is valid.
std::optional<Resumed> resume(Model& model, Optimizer& optimizer, const RunConfig& run,
                              const std::function<void(const std::string&)>& warn);

}  // namespace dsv3
