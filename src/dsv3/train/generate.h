#pragma once
// Text generation from the compressed-latent cache: what MLA keeps of a token is its normed c_kv and its
// rotated key, not the heads' keys and values (arXiv 2412.19437, section 2.1.1).

#include <functional>
#include <optional>
#include <vector>

#include "dsv3/parallel/model.h"

namespace dsv3 {

// The latents of the main model's blocks, allocated once for `capacity` positions of each of `batch` rows.
class LatentCache {
 public:
  LatentCache(const Model& model, int64_t batch, int64_t capacity);

  int64_t length() const { return length_; }  // positions held, padding included
  // Size of the latents: layers · batch · capacity · (kv_lora_rank + qk_rope_head_dim) · bytes of the compute
  // dtype.
  int64_t bytes() const;
  // int64 [B]: the position of each row's next token, which is the number of its real tokens.
  const at::Tensor& next_position_B() const { return next_position_B_; }

  // What Q new tokens need to know of the cache.
  struct Window {
    at::Tensor positions_BQ;  // int64; counted over real tokens, 0 at padding
    at::Tensor allowed_B1QT;  // bool, T = length() with the new ones
  };
  // Makes room for Q tokens. mask_BQ: bool, true = a real token. std::length_error beyond the capacity.
  Window append(const at::Tensor& mask_BQ);
  // Stores the newest tokens' latents of a layer; returns those of all tokens: [B, T, kv_lora_rank] and [B,
  // T, rope].
  std::pair<at::Tensor, at::Tensor> store(int64_t layer, const MlaLatent& latent);

 private:
  at::Tensor latent_LBTC_, k_rope_LBTR_, valid_BT_, next_position_B_;
  int64_t length_ = 0;
};

// Runs Q more tokens of each row against the cache and adds them to it; prefill and decoding are the same
// call. tokens_BQ: int64 in [0, vocabulary); mask_BQ: bool, false = padding, or undefined. Returns logits [B,
// Q, V], at least fp32; those at padding mean nothing. Router counts stay as they are.
at::Tensor decode_logits(Model& model, LatentCache& cache, const at::Tensor& tokens_BQ,
                         const at::Tensor& mask_BQ = {});

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  double temperature = 0;  // 0: greedy, ties to the lowest id
  int64_t top_k = 0;       // sample among the k likeliest; 0: all
  double top_p = 1;        // sample among the likeliest that together reach this probability
  uint64_t seed = 0;
  std::optional<int64_t> eos = {};  // ends a row
  // Every new token as soon as it is known, eos included. Row by row within a position.
  std::function<void(int64_t row, int64_t token)> on_token = {};

  void validate() const;  // UsageError naming the value that is out of range
};

// tokens_BS: int64, S of 1 or more; mask_BS: bool or int64, 0 = padding, which has to be on the left; or
// undefined. Returns the new tokens alone, [B, at most max_new_tokens]: it ends when every row has ended, and
// behind a row's eos stands eos. A row's tokens depend on its own prompt, the seed and the row's number,
// never on the padding. Holds the main model unsharded while it runs (of the experts this rank's part). Every
// rank gets the same tokens. UsageError for a prompt that is empty or padded on the right; RunError when the
// model gives a logit that is not finite.
at::Tensor generate(Model& model, const at::Tensor& tokens_BS, const at::Tensor& mask_BS,
                    const GenerateOptions& options);

}  // namespace dsv3
