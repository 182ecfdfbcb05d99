#pragma once
// Held-out loss, and how evenly the experts are used.

#include "dsv3/parallel/step.h"
#include "dsv3/train/loader.h"

namespace dsv3 {

struct LayerLoad {
  int64_t layer = 0;
  double max_violation = 0;  // (max − mean) / mean of tokens per expert, arXiv 2408.15664
  int64_t dead = 0;          // experts without a token
  double bias_min = 0, bias_max = 0;
};
LayerLoad load_of(int64_t layer, const at::Tensor& count_E, const at::Tensor& bias_E);

struct EvalResult {
  double loss = 0;               // nats per target of the main model
  std::vector<double> mtp_loss;  // of each depth, own targets
  int64_t targets = 0, sequences = 0;
  std::vector<LayerLoad> load;
};

// batches · micro_batch sequences of the loader from its beginning, 0: all of one epoch, shared by the ranks.
// Sums over all ranks; leaves router bias, counters and every generator as they are. micro_batch: the
// loader's. What is wrong in the data of one rank is thrown on all (on_all_ranks).
EvalResult evaluate(Model& model, const Loader& loader, int64_t micro_batch, int64_t batches);

}  // namespace dsv3
