#pragma once
// What a rank puts into a checkpoint, and takes out of one: its ranges of every parameter and moment.

#include <functional>
#include <string>
#include <vector>

#include "dsv3/convert/dcp_writer.h"
#include "dsv3/optim/optimizer.h"

namespace dsv3 {

// A contiguous range of a saved tensor, and where it lives.
struct SavedRange {
  std::string key;             // model.norm.weight, optim.state.model.norm.weight.exp_avg
  std::vector<PathPart> path;  // its place in the nested dictionaries of Python
  std::vector<int64_t> shape;  // of the whole tensor
  int64_t begin = 0;           // elements of the tensor
  at::Tensor values;           // flat, this rank's memory; cpu or device
};

// This rank's ranges of master weights and moments, and on rank 0 of the world the router biases. Replicas
// share the units among them when saving (all = false), under all of dcp_keys; for loading each needs all,
// once.
std::vector<SavedRange> saved_ranges(Model& model, Optimizer& optimizer, bool all);

void write_range(DcpFileWriter& writer, const SavedRange& range);

// What torch.optim.AdamW keeps beside the moments: each parameter's step count, and the keys of the two
// parameter groups (0 decays, 1 does not). By one rank.
void write_optimizer_facts(DcpFileWriter& writer, const Model& model, const OptimConfig& optim, double lr,
                           int64_t updates);

}  // namespace dsv3
