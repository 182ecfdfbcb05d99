#include "dsv3/train/trace.h"

#include <numeric>

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

void add_routing(std::map<std::string, Tensor>& out, int64_t layer, const Routing& routing,
                 at::IntArrayRef shape, const Tensor& count_E) {
  const auto [ids, order] = routing.ids_TK.sort(-1);
  std::vector<int64_t> sizes{shape[0], shape[1], ids.size(1)};
  const std::string prefix = "router." + std::to_string(layer);
  out[prefix + ".experts"] = ids.view(sizes);
  out[prefix + ".weights"] = routing.weight_TK.gather(-1, order).view(sizes);
  out[prefix + ".counts"] = count_E.clone();
}

void add_gradients(std::map<std::string, Tensor>& out, const Model& model) {
  for (const auto& unit : model.flat_units()) {
    if (!unit->trainable()) continue;
    for (const FlatUnit::Slot& slot : unit->slots())
      for (const HfTensor& part : slot.spec->hf) {
        const int64_t numel =
            std::accumulate(part.shape.begin(), part.shape.end(), int64_t{1}, std::multiplies<>());
        out["grad." + part.name] =
            model.collect(*slot.spec, part.offset, numel, /*gradient=*/true).view(part.shape);
      }
  }
}

}  // namespace

std::map<std::string, Tensor> trace(Model& model, const MicroBatch& micro, const LossOptions& loss,
                                    bool gradients) {
  const ModelConfig& config = model.config();
  ForwardOptions options{.logits = true, .routing = true};
  options.hidden.resize(static_cast<size_t>(config.num_hidden_layers));
  std::iota(options.hidden.begin(), options.hidden.end(), 0);

  Step step = model.begin_step({.micro = {micro}, .first_sample = 0});
  Output output = step.forward(micro, options);
  const Losses losses = standard_loss(output, step.counts(), loss);

  std::map<std::string, Tensor> out;
  out["logits"] = output.logits_BSV;
  out["lm_loss"] = losses.lm;
  out["balance_loss"] = output.balance_loss;
  out["loss"] = losses.total.detach() + output.balance_loss;
  for (const auto& [layer, hidden] : output.hidden) out["hidden." + std::to_string(layer)] = hidden.detach();
  for (const auto& [layer, routing] : output.routing)
    add_routing(out, layer, routing, micro.tokens_BS.sizes(), model.router_state(layer)->count_E);
  for (size_t k = 0; k < output.mtp.size(); ++k) {
    const std::string prefix = "mtp." + std::to_string(k + 1);
    out[prefix + ".logits"] = output.mtp[k].logits_BSV;
    out[prefix + ".loss"] = losses.mtp[k];
  }
  if (gradients) {
    losses.total.backward();
    step.backward(std::move(output));
    step.finish();
    add_gradients(out, model);
  }
  return out;
}

Tensor targets_of_labels(const Tensor& labels_BS, const Tensor& padding_BS, const Tensor& documents_BS) {
  const int64_t S = labels_BS.size(1);
  auto next = [S](const Tensor& x, int64_t fill) {
    return at::constant_pad_nd(x.narrow(1, 1, S - 1), {0, 1}, fill);
  };
  Tensor targets = next(labels_BS, kIgnoredTarget);
  if (padding_BS.defined())
    targets = targets.masked_fill(
        padding_BS.logical_and(next(padding_BS.to(at::kLong), 0).to(at::kBool)).logical_not(),
        kIgnoredTarget);
  if (documents_BS.defined())
    targets = targets.masked_fill(next(documents_BS, -1).ne(documents_BS), kIgnoredTarget);
  return targets;
}

}  // namespace dsv3
