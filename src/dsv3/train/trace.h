#pragma once
// Everything that one batch computes, by name: the parity tool.

#include <map>
#include <string>

#include "dsv3/parallel/step.h"

namespace dsv3 {

// Names of `dsv3 trace`: logits, loss, lm_loss, balance_loss,
// hidden.N, router.N.{experts,weights,counts}, mtp.K.{logits,loss} and, with gradients, grad.<Hugging Face
// name>. micro: labels already shifted into targets_BS.
std::map<std::string, at::Tensor> trace(Model& model, const MicroBatch& micro, const LossOptions& loss,
                                        bool gradients);

// Labels aligned with tokens, as Hugging Face's, to targets: target i is label i + 1; −100 at the end, where
// either position is padding, and across documents.
at::Tensor targets_of_labels(const at::Tensor& labels_BS, const at::Tensor& padding_BS,
                             const at::Tensor& documents_BS);

}  // namespace dsv3
