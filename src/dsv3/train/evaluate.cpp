#include "dsv3/train/evaluate.h"

#include "dsv3/comm/agreement.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

LayerLoad load_of(int64_t layer, const at::Tensor& count_E, const at::Tensor& bias_E) {
  const double mean = count_E.sum().item<double>() / static_cast<double>(count_E.numel());
  LayerLoad load{.layer = layer,
                 .max_violation = 0,
                 .dead = count_E.eq(0).sum().item<int64_t>(),
                 .bias_min = 0,
                 .bias_max = 0};
  if (mean > 0) load.max_violation = (count_E.max().item<double>() - mean) / mean;
  load.bias_min = bias_E.min().item<double>();
  load.bias_max = bias_E.max().item<double>();
  return load;
}

EvalResult evaluate(Model& model, const Loader& loader, int64_t micro_batch, int64_t batches) {
  at::NoGradGuard no_grad;
  const ModelConfig& config = model.config();
  const auto depths = static_cast<size_t>(config.num_nextn_predict_layers);
  std::vector<double> sums(depths + 1, 0);
  std::vector<int64_t> valid(depths + 1, 0);
  std::map<int64_t, at::Tensor> counts;
  for (const RouterState& state : model.router_states()) counts[state.layer] = at::zeros_like(state.count_E);

  int64_t samples = loader.samples_per_epoch();
  if (batches > 0) samples = std::min(samples, batches * micro_batch);
  const int64_t round = micro_batch * model.mesh().world_size();
  for (int64_t begin = 0; begin < samples; begin += round) {
    Batch batch;
    // A token that one rank alone finds to be wrong is everybody's error.
    on_all_ranks(model.mesh(), [&] { batch = loader.at(begin, std::min(round, samples - begin)); });
    for (const MicroBatch& micro : batch.micro) {
      const Output output = model.evaluate(micro, {.routing = true});
      const StepCounts step =
          count_batch({.micro = {micro}, .first_sample = 0}, static_cast<int64_t>(depths));
      sums[0] -= output.logp_BS.sum().item<double>();
      valid[0] += step.valid;
      for (size_t k = 0; k < depths; ++k) {
        sums[k + 1] -= output.mtp[k].logp_BS.sum().item<double>();
        valid[k + 1] += step.mtp_valid[k];
      }
      for (const auto& [layer, routing] : output.routing) {
        const int64_t depth = std::max<int64_t>(0, layer - config.num_hidden_layers + 1);
        const at::Tensor valid_BS = inputs_of_depth(micro, depth).valid_BS;
        counts[layer].add_(count_tokens(routing.ids_TK,
                                        valid_BS.defined() ? valid_BS.reshape({-1}) : at::Tensor(),
                                        config.n_routed_experts));
      }
    }
  }
  const Mesh& mesh = model.mesh();
  sums = mesh.sum(sums, "evaluation");
  valid = mesh.sum(valid, "evaluation");
  for (auto& [layer, count] : counts) mesh.world().all_reduce(count, "evaluation counts").wait();

  EvalResult result;
  result.sequences = samples;
  auto mean = [&](size_t depth) {
    return sums[depth] / static_cast<double>(std::max<int64_t>(valid[depth], 1));
  };
  result.loss = mean(0);
  result.targets = valid[0];
  for (size_t k = 1; k <= depths; ++k) result.mtp_loss.push_back(mean(k));
  for (const auto& [layer, count] : counts)
    result.load.push_back(load_of(layer, count, model.router_state(layer)->bias_E));
  return result;
}

}  // namespace dsv3
