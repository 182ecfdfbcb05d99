#include "dsv3/parallel/losses.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

using at::Tensor;

StepCounts count_batch(const Batch& batch, int64_t mtp_depth) {
  StepCounts counts;
  counts.mtp_valid.resize(static_cast<size_t>(mtp_depth), 0);
  auto targets = [](const DepthInputs& inputs) {
    return inputs.targets_BS.ne(kIgnoredTarget).sum().item<int64_t>();
  };
  for (const MicroBatch& micro : batch.micro) {
    counts.sequences += micro.tokens_BS.size(0);
    counts.tokens +=
        micro.padding_BS.defined() ? micro.padding_BS.sum().item<int64_t>() : micro.tokens_BS.numel();
    counts.valid += targets(inputs_of_depth(micro, 0));
    for (int64_t k = 1; k <= mtp_depth; ++k) counts.mtp_valid[k - 1] += targets(inputs_of_depth(micro, k));
  }
  return counts;
}

Losses standard_loss(const Output& output, const StepCounts& counts, const LossOptions& options) {
  auto mean = [](const Tensor& logp, int64_t valid) {
    return logp.sum().neg() / static_cast<double>(std::max<int64_t>(valid, 1));
  };
  Losses losses;
  losses.total = mean(output.logp_BS, counts.valid);
  losses.lm = losses.total.detach();
  const double depths = static_cast<double>(output.mtp.size());
  for (size_t k = 0; k < output.mtp.size(); ++k) {
    const Tensor loss =
        mean(output.mtp[k].logp_BS, options.mtp_count_main ? counts.valid : counts.mtp_valid[k]);
    losses.mtp.push_back(loss.detach());
    losses.total = losses.total + loss * (options.mtp_lambda / depths);
  }
  return losses;
}

}  // namespace dsv3
