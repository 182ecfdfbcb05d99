#include "dsv3/train/generate.h"

#include <cmath>
#include <numeric>
#include <stdexcept>

#include "dsv3/base/error.h"
#include "dsv3/base/philox.h"
#include "dsv3/ops/embedding.h"
#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

// Long prompts are read in pieces: the scores of a piece take heads · piece · length values.
constexpr int64_t kPrefillPiece = 512;

Tensor cached_attention_half(const PassContext& pass, const UnitParams& p, const Tensor& x_BQH,
                             LatentCache& cache, int64_t layer, const Tensor& allowed_B1QT) {
  const BlockShared& shared = *pass.shared;
  const Tensor x = rms_norm(shared.ops, x_BQH, p[Role::input_layernorm], shared.config.rms_norm_eps);
  const MlaQuery q = mla_query(pass, p, x);
  const auto [latent_BTC, k_rope_BTR] = cache.store(layer, mla_latent(pass, p, x));
  const Tensor heads = latent_attention(q.nope, q.rope, latent_BTC, k_rope_BTR, p[Role::kv_b_proj].data,
                                        allowed_B1QT, shared.attention);
  return x_BQH + mla_output(pass, p, heads);
}

// The hidden states under the head, [B, Q, H].
Tensor decode_hidden(Model& model, LatentCache& cache, const Tensor& tokens_BQ, const Tensor& mask_BQ) {
  const ModelConfig& config = model.config();
  const LatentCache::Window window =
      cache.append(mask_BQ.defined() ? mask_BQ : at::ones_like(tokens_BQ, at::kBool));
  MicroBatch micro;
  micro.tokens_BS = tokens_BQ;
  micro.positions_BS = window.positions_BQ;
  const PassContext pass = model.pass_context(micro);
  Tensor x;
  {
    const Unsharded unsharded(model.flat_units_of(0));
    x = embedding(tokens_BQ, model.unit(0)[Role::embed_tokens]);
  }
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const int unit = model.table().block_unit(layer);
    const Unsharded unsharded(model.flat_units_of(unit));
    if (layer + 1 < config.num_hidden_layers)
      for (FlatUnit* next : model.flat_units_of(model.table().block_unit(layer + 1))) next->prefetch();
    x = cached_attention_half(pass, model.unit(unit), x, cache, layer, window.allowed_B1QT);
    x = ffn_half(pass, model.unit(unit), model.router_state(layer), x, {}).y_BSH;
  }
  const int head = model.table().head_unit();
  const Unsharded unsharded(model.flat_units_of(head));
  return rms_norm(model.exec().ops, x, model.unit(head)[Role::final_norm], config.rms_norm_eps);
}

Tensor head_logits(Model& model, const Tensor& hidden_BQH) {
  const int unit = model.config().tie_word_embeddings ? 0 : model.table().head_unit();
  const Unsharded unsharded(model.flat_units_of(unit));
  return at::linear(hidden_BQH, model.head().data).to(at_least_fp32(hidden_BQH.scalar_type()));
}

// The units that are held for a whole generation: the main model's, which spares an all-gather, or a copy, of
// the weights for every token. None when the ranks share a model that may be too large for one of them.
std::vector<FlatUnit*> held_units(const Model& model) {
  std::vector<FlatUnit*> units;
  if (model.mesh().data().size() > 1 && model.exec().reshard != Reshard::never) return units;
  for (int unit = 0; unit <= model.table().head_unit(); ++unit)
    for (FlatUnit* flat : model.flat_units_of(unit)) units.push_back(flat);
  return units;
}

// One token by the options, from a row of logits. uniform: in [0, 1).
int64_t choose_token(std::span<const double> logits, const GenerateOptions& options, double uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (options.temperature == 0) return best - logits.begin();

  std::vector<int64_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const size_t kept =
      options.top_k > 0 ? std::min(ids.size(), static_cast<size_t>(options.top_k)) : ids.size();
  if (kept < ids.size() || options.top_p < 1)
    std::partial_sort(
        ids.begin(), ids.begin() + static_cast<ptrdiff_t>(kept), ids.end(),
        [&](int64_t a, int64_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  ids.resize(kept);

  std::vector<double> sums(kept);  // of the weights up to and with ids[i]
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) sums[i] = sum += std::exp((logits[ids[i]] - *best) / options.temperature);
  if (options.top_p < 1) {
    const auto last = std::lower_bound(sums.begin(), sums.end(), options.top_p * sum);
    sums.resize(static_cast<size_t>(std::min(last, sums.end() - 1) - sums.begin()) + 1);
  }
  const auto chosen = std::upper_bound(sums.begin(), sums.end(), uniform * sums.back());
  return ids[static_cast<size_t>(std::min(chosen, sums.end() - 1) - sums.begin())];
}

double uniform_number(uint64_t seed, int64_t row, int64_t position) {
  const uint64_t bits =
      philox_u64(seed, hash_name("generate row " + std::to_string(row)), static_cast<uint64_t>(position));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

std::vector<int64_t> choose_tokens(const Tensor& logits_BV, const Tensor& position_B,
                                   const GenerateOptions& options) {
  const Tensor logits = logits_BV.to(at::kCPU, at::kDouble).contiguous();
  if (!logits.isfinite().all().item<bool>())
    throw RunError("generate", "the model's logits are not finite", "look at its weights with dsv3 eval");
  const auto V = static_cast<size_t>(logits.size(1));
  std::vector<int64_t> tokens;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const double uniform = uniform_number(options.seed, row, position_B[row].item<int64_t>());
    tokens.push_back(
        choose_token({logits.const_data_ptr<double>() + static_cast<size_t>(row) * V, V}, options, uniform));
  }
  return tokens;
}

// Every rank computes the same rows; the last bits may differ with a row's place in a product, so rank 0's
// choice counts.
std::vector<int64_t> agree(const Model& model, std::vector<int64_t> tokens) {
  const Tensor chosen = at::tensor(tokens).to(model.exec().device);
  model.mesh().world().broadcast(chosen, 0, "generate").wait();
  const Tensor agreed = chosen.cpu();
  return {agreed.const_data_ptr<int64_t>(), agreed.const_data_ptr<int64_t>() + agreed.numel()};
}

// The logits that follow the prompt, [B, V].
Tensor prefill(Model& model, LatentCache& cache, const Tensor& tokens_BS, const Tensor& mask_BS) {
  const int64_t S = tokens_BS.size(1);
  Tensor hidden;
  for (int64_t begin = 0; begin < S; begin += kPrefillPiece) {
    const int64_t size = std::min(kPrefillPiece, S - begin);
    hidden = decode_hidden(model, cache, tokens_BS.narrow(1, begin, size), mask_BS.narrow(1, begin, size));
  }
  return head_logits(model, hidden.select(1, hidden.size(1) - 1));
}

void check_prompt(const Tensor& tokens_BS, const Tensor& mask_BS) {
  if (tokens_BS.dim() != 2 || tokens_BS.numel() == 0)
    throw UsageError("prompt", "is empty", "generation needs a token to start from");
  if (mask_BS.sizes() != tokens_BS.sizes()) throw UsageError("mask", "has another shape than the prompt");
  const Tensor ascending =
      mask_BS.narrow(1, 0, mask_BS.size(1) - 1).le(mask_BS.narrow(1, 1, mask_BS.size(1) - 1));
  if (!ascending.all().item<bool>() || !mask_BS.select(1, -1).all().item<bool>())
    throw UsageError("mask", "a prompt has padding behind a token or no token",
                     "padding has to be on the left");
}

}  // namespace

LatentCache::LatentCache(const Model& model, int64_t batch, int64_t capacity) {
  const ModelConfig& config = model.config();
  const at::TensorOptions options = at::TensorOptions().device(model.exec().device);
  const at::TensorOptions latent = options.dtype(model.exec().dtype);
  latent_LBTC_ = at::empty({config.num_hidden_layers, batch, capacity, config.kv_lora_rank}, latent);
  k_rope_LBTR_ = at::empty({config.num_hidden_layers, batch, capacity, config.qk_rope_head_dim}, latent);
  valid_BT_ = at::zeros({batch, capacity}, options.dtype(at::kBool));
  next_position_B_ = at::zeros({batch}, options.dtype(at::kLong));
}

int64_t LatentCache::bytes() const {
  return static_cast<int64_t>(latent_LBTC_.storage().nbytes() + k_rope_LBTR_.storage().nbytes());
}

LatentCache::Window LatentCache::append(const Tensor& mask_BQ) {
  const int64_t B = mask_BQ.size(0), Q = mask_BQ.size(1), T = length_ + Q;
  if (T > valid_BT_.size(1)) throw std::length_error("LatentCache: more tokens than its capacity");
  valid_BT_.narrow(1, length_, Q).copy_(mask_BQ);
  const Tensor count_BQ = mask_BQ.to(at::kLong).cumsum(1).add_(next_position_B_.unsqueeze(1));
  const Tensor key_T = at::arange(T, count_BQ.options());
  const Tensor causal_QT = key_T.unsqueeze(0).le(key_T.narrow(0, length_, Q).unsqueeze(1));
  Window window{.positions_BQ = count_BQ.sub(1).masked_fill_(mask_BQ.logical_not(), 0),
                .allowed_B1QT = causal_QT.logical_and(valid_BT_.narrow(1, 0, T).view({B, 1, 1, T}))};
  next_position_B_ = count_BQ.select(1, Q - 1).clone();
  length_ = T;
  return window;
}

std::pair<Tensor, Tensor> LatentCache::store(int64_t layer, const MlaLatent& latent) {
  const int64_t Q = latent.c_kv.size(1);
  auto put = [&](const Tensor& all_LBTX, const Tensor& x_BQX) {
    const Tensor layer_BTX = all_LBTX[layer].narrow(1, 0, length_);
    layer_BTX.narrow(1, length_ - Q, Q).copy_(x_BQX);
    return layer_BTX;
  };
  return {put(latent_LBTC_, latent.c_kv), put(k_rope_LBTR_, latent.k_rope.squeeze(2))};
}

Tensor decode_logits(Model& model, LatentCache& cache, const Tensor& tokens_BQ, const Tensor& mask_BQ) {
  const at::NoGradGuard no_grad;
  return head_logits(model, decode_hidden(model, cache, tokens_BQ, mask_BQ));
}

void GenerateOptions::validate() const {
  auto require = [](bool good, const char* name, auto value, const char* expected) {
    if (!good) throw UsageError(name, std::to_string(value) + ", expected " + expected);
  };
  require(max_new_tokens >= 0 && max_new_tokens <= 1 << 24, "--max-new-tokens", max_new_tokens,
          "0 to 16777216");
  require(std::isfinite(temperature) && temperature >= 0, "--temperature", temperature, "0 (greedy) or more");
  require(top_k >= 0, "--top-k", top_k, "0 (all) or more");
  require(top_p > 0 && top_p <= 1, "--top-p", top_p, "a number above 0 and up to 1");
}

Tensor generate(Model& model, const Tensor& tokens_BS, const Tensor& mask_BS,
                const GenerateOptions& options) {
  const at::NoGradGuard no_grad;
  options.validate();
  const Tensor mask = mask_BS.defined() ? mask_BS.to(at::kBool) : at::ones_like(tokens_BS, at::kBool);
  check_prompt(tokens_BS, mask);
  const int64_t B = tokens_BS.size(0);
  Tensor out_BS = at::full({B, options.max_new_tokens}, options.eos.value_or(0), tokens_BS.options());
  if (options.max_new_tokens == 0) return out_BS;

  const Unsharded unsharded(held_units(model));
  // The last new token is never read.
  LatentCache cache(model, B, tokens_BS.size(1) + options.max_new_tokens - 1);
  Tensor logits_BV = prefill(model, cache, tokens_BS, mask);
  std::vector<bool> ended(static_cast<size_t>(B), false);
  for (int64_t i = 0;; ++i) {
    const std::vector<int64_t> tokens =
        agree(model, choose_tokens(logits_BV, cache.next_position_B(), options));
    for (int64_t row = 0; row < B; ++row) {
      if (ended[row]) continue;
      out_BS[row][i] = tokens[row];
      ended[row] = options.eos && tokens[row] == *options.eos;
      if (options.on_token) options.on_token(row, tokens[row]);
    }
    const bool all_ended = std::find(ended.begin(), ended.end(), false) == ended.end();
    if (all_ended || i + 1 == options.max_new_tokens) return out_BS.narrow(1, 0, i + 1);
    logits_BV = decode_logits(model, cache, out_BS.narrow(1, i, 1), {}).select(1, 0);
  }
}

}  // namespace dsv3
