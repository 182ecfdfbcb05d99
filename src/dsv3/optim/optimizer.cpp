#include "dsv3/optim/optimizer.h"

#include <cmath>

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements of a temporary

}  // namespace

double gradient_norm(const Model& model) {
  at::NoGradGuard no_grad;
  double sum = 0;
  // Piece by piece: what lies between parameters in the buffers is no gradient.
  for (const auto& unit : model.flat_units()) {
    if (!unit->trainable()) continue;
    for (const FlatUnit::Piece& piece : unit->pieces())
      for (int64_t begin = 0; begin < piece.count; begin += kPiece) {
        const int64_t size = std::min(kPiece, piece.count - begin);
        const at::Tensor part = unit->grad().narrow(0, piece.offset + begin, size).to(at::kDouble);
        sum += part.dot(part).item<double>();
      }
  }
  const Mesh& mesh = model.mesh();
  const at::Tensor total =
      at::full({1}, sum, at::TensorOptions().dtype(at::kDouble).device(model.exec().device));
  mesh.data().all_reduce(total, "gradient norm").wait();
  return std::sqrt(total.item<double>());
}

void update_router_bias(RouterState& state, double gamma) {
  at::NoGradGuard no_grad;
  const at::Tensor total = state.count_E.sum();
  const at::Tensor direction = (total - state.count_E * state.count_E.size(0)).sign();
  state.bias_E.add_(direction.to(state.bias_E.scalar_type()), gamma);
}

Optimizer::Optimizer(Model& model, const OptimConfig& config) : model_(model), config_(config) {
  for (const auto& unit : model.flat_units()) {
    if (!unit->trainable()) continue;
    const auto dtype = config.moments == "bf16" && unit->master().scalar_type() == at::kFloat
                           ? at::kBFloat16
                           : unit->master().scalar_type();
    const at::Tensor zeros = at::zeros(unit->grad().sizes(), unit->grad().options().dtype(dtype));
    moments_.push_back({unit.get(), zeros, zeros.clone()});
  }
}

void Optimizer::update(Moments& moments, const FlatUnit::Range& range, double lr) {
  const double decay = range.decay ? config_.weight_decay : 0.0;
  const at::Tensor t = at::scalar_tensor(static_cast<double>(t_), at::kFloat);
  auto run = [&](at::Tensor weight, at::Tensor grad, at::Tensor first, at::Tensor second) {
    at::_fused_adamw_({weight}, {grad}, {first}, {second}, {}, {t}, lr, config_.beta1, config_.beta2, decay,
                      config_.eps, /*amsgrad=*/false, /*maximize=*/false);
  };
  if (moments.first.scalar_type() == moments.unit->master().scalar_type()) {
    const int64_t size = range.end - range.begin;
    run(moments.unit->master().narrow(0, range.begin, size),
        moments.unit->grad().narrow(0, range.begin, size), moments.first.narrow(0, range.begin, size),
        moments.second.narrow(0, range.begin, size));
    return;
  }
  // ATen's kernel wants moments of the weight's dtype: widen a piece, update, round it back.
  for (int64_t begin = range.begin; begin < range.end; begin += kPiece) {
    const int64_t size = std::min(kPiece, range.end - begin);
    at::Tensor first = moments.first.narrow(0, begin, size), second = moments.second.narrow(0, begin, size);
    const at::Tensor wide_first = first.to(at::kFloat), wide_second = second.to(at::kFloat);
    run(moments.unit->master().narrow(0, begin, size), moments.unit->grad().narrow(0, begin, size),
        wide_first, wide_second);
    first.copy_(wide_first);
    second.copy_(wide_second);
  }
}

StepInfo Optimizer::step(const StepResult& result, double lr, double gamma, bool loss_finite) {
  at::NoGradGuard no_grad;
  model_.mesh().phase("optimizer");
  for (const auto& unit : model_.flat_units())
    if (unit->in_use())
      throw std::logic_error(
          "Optimizer::step: " + unit->name() +
          " is unsharded still: an Output of this step was neither given to backward nor dropped");
  StepInfo info;
  info.grad_norm = gradient_norm(*result.model);
  // Copies of the model hold equal gradients; the callers' verdicts on the loss may differ.
  const double bad = loss_finite && std::isfinite(info.grad_norm) ? 0 : 1;
  if (model_.mesh().sum(std::span<const double>(&bad, 1), "skip")[0] > 0) {
    info.skipped = true;
    return info;
  }
  // The formula of torch.nn.utils.clip_grad_norm_.
  const double factor = config_.clip > 0 ? config_.clip / (info.grad_norm + 1e-6) : 1.0;
  ++t_;
  for (Moments& moments : moments_) {
    if (factor < 1) moments.unit->grad().mul_(factor);
    for (const FlatUnit::Range& range : moments.unit->ranges()) update(moments, range, lr);
  }
  if (gamma != 0)
    for (RouterState& state : model_.router_states()) update_router_bias(state, gamma);
  return info;
}

}  // namespace dsv3
