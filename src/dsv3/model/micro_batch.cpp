#include "dsv3/model/micro_batch.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

// x[:, depth:], filled up with `fill`.
at::Tensor shifted(const at::Tensor& x_BS, int64_t depth, int64_t fill) {
  const int64_t kept = std::max<int64_t>(0, x_BS.size(1) - depth);
  return at::constant_pad_nd(x_BS.narrow(1, x_BS.size(1) - kept, kept), {0, x_BS.size(1) - kept}, fill);
}

}  // namespace

DepthInputs inputs_of_depth(const MicroBatch& micro, int64_t depth) {
  DepthInputs out;
  out.valid_BS = micro.padding_BS;
  if (depth == 0) {
    out.tokens_BS = micro.tokens_BS;
    out.targets_BS = micro.targets_BS;
  } else {
    const int64_t S = micro.tokens_BS.size(1);
    out.tokens_BS = shifted(micro.tokens_BS, depth, 0);
    out.targets_BS = shifted(micro.targets_BS, depth, kIgnoredTarget);
    at::Tensor valid = at::arange(S, micro.tokens_BS.options()).lt(S - depth).expand_as(micro.tokens_BS);
    if (micro.padding_BS.defined())
      valid = valid.bitwise_and(micro.padding_BS)
                  .bitwise_and(shifted(micro.padding_BS.to(at::kLong), depth, 0).to(at::kBool));
    if (micro.documents_BS.defined())
      valid = valid.bitwise_and(shifted(micro.documents_BS, depth, -1).eq(micro.documents_BS));
    out.valid_BS = valid;
  }
  if (out.valid_BS.defined())
    out.targets_BS = out.targets_BS.masked_fill(out.valid_BS.bitwise_not(), kIgnoredTarget);
  return out;
}

}  // namespace dsv3
