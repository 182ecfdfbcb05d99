#include "dsv3/ops/token_logprob.h"

#include "support/ops.h"

namespace dsv3 {
namespace {

using namespace test;
using at::Tensor;

Tensor entropy(const Tensor& logits) {
  const Tensor logp = logits.log_softmax(-1);
  return (logp.exp() * logp).sum(-1).neg();
}

// Entropy at a temperature of each token's own, so that a wrong `first` shows.
VocabFunction extra_of(const Tensor& temperature_T) {
  return [=](const Tensor& logits, int64_t first) {
    const Tensor t = temperature_T.to(logits.device()).narrow(0, first, logits.size(0)).unsqueeze(1);
    return entropy(logits * t.to(logits.scalar_type()));
  };
}

Op op_of(const Tensor& targets, const VocabFunction& extra) {
  return [=](const Tensors& x, Params& w) {
    const TokenLogprob out = token_logprob(options(), x[0], w[0], targets.to(x[0].device()), extra);
    return out.extra_T.defined() ? at::stack({out.logp_T, out.extra_T}) : out.logp_T;
  };
}
Oracle oracle_of(const Tensor& targets, const Tensor& temperature) {
  return [=](const Tensors& x, const Tensors& w) {
    const Tensor logits = x[0].matmul(w[0].t());
    const Tensor logp =
        logits.log_softmax(-1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1) * targets.ge(0);
    return temperature.defined() ? at::stack({logp, entropy(logits * temperature.unsqueeze(1))}) : logp;
  };
}

TEST(TokenLogprob, AgreesWithLogSoftmaxWithAndWithoutAnExtra) {
  const Tensor targets = at::tensor({3, -100, 0, 10, 3, -100, 7}, at::kLong);
  const Tensor temperature = random({7}, 3).abs() + 0.5;
  const Tensors x = {random({7, 8})}, w = {random({11, 8}, 2)};
  expect_agrees(x, w, op_of(targets, {}), oracle_of(targets, {}));
  expect_agrees(x, w, op_of(targets, extra_of(temperature)), oracle_of(targets, temperature));
  expect_jacobian({random({7, 4})}, {random({11, 4}, 2)}, op_of(targets, {}));
  expect_jacobian({random({7, 4})}, {random({11, 4}, 2)}, op_of(targets, extra_of(temperature)));
  const Tensor none = targets.narrow(0, 0, 0);
  expect_agrees({random({0, 8})}, w, op_of(none, {}), oracle_of(none, {}));
  expect_agrees({random({0, 8})}, w, op_of(none, extra_of(temperature)),
                oracle_of(none, temperature.narrow(0, 0, 0)));
}

TEST(TokenLogprob, ChunksEqualTheWhole) {
  constexpr int64_t kVocab = 65536;
  const int64_t T = logprob_chunk(kVocab) + 5;
  ASSERT_EQ(logprob_chunk(kVocab), 128);
  Tensor targets = at::randint(kVocab, {T}, at::detail::createCPUGenerator(4), at::kLong);
  targets[T - 2] = -100;
  const Tensor temperature = at::linspace(0.5, 1.5, T, at::kDouble);
  const Tensors x = {random({T, 4})}, w = {random({kVocab, 4}, 2)};
  const Gradients got = run_op(x, w, op_of(targets, extra_of(temperature)));
  expect_equal(got, run_oracle(x, w, oracle_of(targets, temperature), got.dy), 1e-12);
}

TEST(TokenLogprob, IgnoredTokensGiveZeroAndNoGradient) {
  const Tensor targets = at::tensor({2, -100, 4}, at::kLong);
  const Gradients got = run_op({random({3, 8})}, {random({6, 8}, 2)}, op_of(targets, {}));
  EXPECT_EQ(got.y[1].item<double>(), 0);
  EXPECT_EQ(got.dx[0][1].abs().max().item<double>(), 0);
  EXPECT_GT(got.dx[0][0].abs().max().item<double>(), 0);
  const Gradients none =
      run_op({random({3, 8})}, {random({6, 8}, 2)}, op_of(at::full_like(targets, -100), {}));
  EXPECT_EQ(none.y.abs().max().item<double>(), 0);
  EXPECT_EQ(none.dx[0].abs().max().item<double>(), 0);
  EXPECT_EQ(none.dw[0].abs().max().item<double>(), 0);
}

// A loss on one of the two outputs alone: the other's gradient is undefined, not garbage.
TEST(TokenLogprob, EitherOutputMayGoUnused) {
  const Tensor targets = at::tensor({2, -100, 4}, at::kLong), temperature = at::ones({3}, at::kDouble);
  const Tensors x = {random({3, 8})}, w = {random({6, 8}, 2)};
  for (int64_t row : {0, 1}) {
    const Gradients got = run_op(x, w, [&](const Tensors& x, Params& w) {
      const TokenLogprob out = token_logprob(options(), x[0], w[0], targets, extra_of(temperature));
      return row == 0 ? out.logp_T : out.extra_T;
    });
    const Oracle both = oracle_of(targets, temperature);
    expect_equal(got,
                 run_oracle(
                     x, w, [&](const Tensors& x, const Tensors& w) { return both(x, w)[row]; }, got.dy),
                 1e-12);
  }
}

TEST(TokenLogprob, NeedsNoGraphForInference) {
  at::NoGradGuard no_grad;
  Param head = param(random({6, 8}, 2));
  const Tensor hidden = random({3, 8}), targets = at::tensor({2, -100, 4}, at::kLong);
  const TokenLogprob out = token_logprob(options(), hidden, head, targets);
  EXPECT_LE(relative_error(out.logp_T, oracle_of(targets, {})({hidden}, {head.data})), 1e-12);
  EXPECT_FALSE(out.extra_T.defined());
  EXPECT_FALSE(out.logp_T.requires_grad());
}

}  // namespace
}  // namespace dsv3
