#pragma once
// The tokens of one forward pass and what each depth of prediction makes of them.

#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

namespace dsv3 {

inline constexpr int64_t kIgnoredTarget = -100;

struct MicroBatch {
  at::Tensor tokens_BS;                  // int64
  at::Tensor targets_BS;                 // int64, the token that follows, or −100
  at::Tensor padding_BS;                 // bool, true = a real token; undefined: all are
  at::Tensor documents_BS;               // int64; attention stays inside a document; undefined: one document
  at::Tensor positions_BS;               // int64; undefined: 0 … S − 1
  std::map<int64_t, at::Tensor> replay;  // layer → ids_TK of another run's router; normally empty
};

// One optimizer step's share of this rank.
struct Batch {
  std::vector<MicroBatch> micro;
  int64_t first_sample = 0;  // cursor of its first sequence
};

// What depth k of multi-token prediction reads at position i: token i + k, and predicts token i + k + 1.
// Shifts do not compound. k = 0 is the main model.
struct DepthInputs {
  at::Tensor tokens_BS;  // token i + k; 0 in the tail
  at::Tensor targets_BS;  // −100 in the tail, at padding and where i and i + k + 1 lie in different documents
  at::Tensor valid_BS;  // bool: positions that take part (loss, router counts, balance loss); undefined: all
};
DepthInputs inputs_of_depth(const MicroBatch& micro, int64_t depth);

}  // namespace dsv3
