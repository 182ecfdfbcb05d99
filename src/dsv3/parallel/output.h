#pragma once
// What a forward pass gives: leaves to write a loss on.

#include <map>
#include <memory>
#include <vector>

#include "dsv3/ops/router.h"
#include "dsv3/ops/token_logprob.h"

namespace dsv3 {

struct ForwardOptions {
  std::vector<int64_t> hidden = {};  // blocks whose output is wanted, 0 … L − 1
  VocabFunction vocab = {};          // a loss over the whole vocabulary, see token_logprob
  bool logits = false;               // whole logits, outside the graph (trace; memory of B · S · V)
  bool routing = false;              // routing of every layer, outside the graph
};

// The leaves that a loss is written on: after loss.backward() their grad() is what Step::backward reads; an
// undefined grad is zero. Several may be alive at once, none beyond the step: it keeps weights unsharded.
struct Output {
  struct Depth {
    at::Tensor logp_BS;     // log-probability of the target, at least fp32; 0 where the target is −100
    at::Tensor extra_BS;    // ForwardOptions::vocab of the main model; undefined without
    at::Tensor logits_BSV;  // ForwardOptions::logits
  };
  at::Tensor logp_BS, extra_BS, logits_BSV;
  std::vector<Depth> mtp;                // depth 1 … D
  std::map<int64_t, at::Tensor> hidden;  // block → [B, S, H]
  std::map<int64_t, Routing> routing;    // layer → its routing, detached
  at::Tensor balance_loss;               // detached scalar: this micro-batch's share of the global mean

  struct Tape;
  std::shared_ptr<Tape> tape;  // boundaries; empty without a graph
};

}  // namespace dsv3
