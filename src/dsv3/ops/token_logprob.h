#pragma once
// Output head and log-probabilities, without ever holding the logits of the whole batch.

#include <functional>

#include "dsv3/ops/options.h"
#include "dsv3/ops/param.h"

namespace dsv3 {

// A loss over the whole vocabulary (KL, entropy): logits_CV (at least fp32, in a graph) of tokens [first,
// first + C) → one value per token, [C]. Called again in backward on the same logits, so it must be
// deterministic.
using VocabFunction = std::function<at::Tensor(const at::Tensor& logits_CV, int64_t first)>;

struct TokenLogprob {
  at::Tensor logp_T;   // at least fp32, in the graph; 0 where the target is −100
  at::Tensor extra_T;  // the VocabFunction's values, in the graph; undefined without one
};

// hidden_TH: compute dtype; head: [V, H]; targets_T: int64 in [0, V) or −100. Logits live a chunk of tokens
// at a time; backward recomputes them. Backward: dhidden by autograd, dW into head.grad.
TokenLogprob token_logprob(const OpsOptions& ops, const at::Tensor& hidden_TH, Param& head,
                           const at::Tensor& targets_T, const VocabFunction& extra = {});

// Tokens of a chunk: its logits take about 32 MB.
int64_t logprob_chunk(int64_t vocab_size);

}  // namespace dsv3
