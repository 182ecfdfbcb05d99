// linear, embedding, rms_norm, rope, swiglu.

#include <cmath>

#include "dsv3/model/rope_tables.h"
#include "dsv3/ops/embedding.h"
#include "dsv3/ops/linear.h"
#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/swiglu.h"
#include "support/ops.h"

namespace dsv3 {
namespace {

using namespace test;
using at::Tensor;

const Op kLinear = [](const Tensors& x, Params& w) {
  return linear(options(), x[0], w[0], w.size() > 1 ? &w[1] : nullptr);
};
const Oracle kLinearOracle = [](const Tensors& x, const Tensors& w) {
  return at::linear(x[0], w[0], w.size() > 1 ? w[1] : Tensor());
};

TEST(Linear, AgreesWithAten) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{2, 3, 8}, {33, 8}, {2, 0, 8}, {0, 8}}) {
    SCOPED_TRACE(at::IntArrayRef(shape));
    expect_agrees({random(shape)}, {random({6, 8}, 2)}, kLinear, kLinearOracle);
    expect_agrees({random(shape)}, {random({6, 8}, 2), random({6}, 3)}, kLinear, kLinearOracle);
  }
  expect_jacobian({random({2, 3, 4})}, {random({5, 4}, 2), random({5}, 3)}, kLinear);
}

TEST(Linear, TakesInputsAndGradientsThatAreNotContiguous) {
  expect_agrees(
      {random({8, 5})}, {random({6, 8}, 2)},
      [](const Tensors& x, Params& w) { return linear(options(), x[0].t(), w[0]).t(); },
      [](const Tensors& x, const Tensors& w) { return at::linear(x[0].t(), w[0]).t(); });
}

TEST(LinearFp32, ComputesInFp32AtLeast) {
  const Op op = [](const Tensors& x, Params& w) { return linear_fp32(x[0], w[0]); };
  expect_agrees({random({7, 8})}, {random({6, 8}, 2)}, op, kLinearOracle);
  expect_agrees({random({0, 8})}, {random({6, 8}, 2)}, op, kLinearOracle);
  expect_jacobian({random({3, 4})}, {random({5, 4}, 2)}, op);

  const Tensors x = {random({7, 64}).to(at::kBFloat16)}, w = {random({6, 64}, 2).to(at::kBFloat16)};
  const Gradients low = run_op(x, w, op);
  EXPECT_EQ(low.y.scalar_type(), at::kFloat);
  const Gradients exact = run_oracle(x, w, kLinearOracle, low.dy);
  EXPECT_LT(relative_error(low.y, exact.y), 1e-6);
  EXPECT_LT(relative_error(low.dw[0], exact.dw[0]), 1e-6);
}

TEST(RmsNorm, AgreesWithItsEquation) {
  const Op op = [](const Tensors& x, Params& w) { return rms_norm(options(), x[0], w[0], 1e-3); };
  const Oracle oracle = [](const Tensors& x, const Tensors& w) {
    return w[0] * x[0] / (x[0].square().mean(-1, true) + 1e-3).sqrt();
  };
  // 150 rows: more than one task of the kernel.
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{2, 3, 8}, {150, 8}, {2, 0, 8}}) {
    SCOPED_TRACE(at::IntArrayRef(shape));
    expect_agrees({random(shape) * 0.05}, {random({8}, 2)}, op, oracle);
  }
  expect_jacobian({random({2, 3, 4})}, {random({4}, 2)}, op);
  expect_agrees({at::zeros({2, 8})}, {random({8}, 2)}, op, oracle);
}

TEST(Swiglu, AgreesWithItsEquation) {
  const Op op = [](const Tensors& x, Params&) { return swiglu(x[0], x[1]); };
  const Oracle oracle = [](const Tensors& x, const Tensors&) { return x[0] * x[0].sigmoid() * x[1]; };
  expect_agrees({random({4, 9}) * 3, random({4, 9}, 2)}, {}, op, oracle);
  expect_agrees({random({0, 9}), random({0, 9}, 2)}, {}, op, oracle);
  expect_jacobian({random({3, 4}), random({3, 4}, 2)}, {}, op);
  // Halves of one product, as the dense feed-forward network passes them.
  expect_agrees(
      {random({5, 8})}, {},
      [](const Tensors& x, Params&) { return swiglu(x[0].narrow(1, 0, 4), x[0].narrow(1, 4, 4)); },
      [&](const Tensors& x, const Tensors&) {
        return oracle({x[0].narrow(1, 0, 4), x[0].narrow(1, 4, 4)}, {});
      });
}

TEST(Embedding, LooksUpAndAddsEveryRepeatButThePaddingRow) {
  const Tensor ids = at::tensor({3, 1, 3, 0, 2, 3}, at::kLong).view({2, 3});
  for (auto [dtype, tolerance] :
       {std::pair(at::kDouble, 1e-12), std::pair(at::kFloat, 1e-5), std::pair(at::kBFloat16, 1e-2)}) {
    for (std::optional<int64_t> padding : {std::optional<int64_t>(), std::optional<int64_t>(3)}) {
      const Tensor table = random({5, 4}).to(dtype), dy = random({2, 3, 4}, 2).to(dtype);
      Param w = param(table);
      w.grad.fill_(1);
      const Tensor expected = leaf(table.to(at::kDouble));
      const Tensor y = at::embedding(expected, ids, padding.value_or(-1));
      y.backward(dy.to(at::kDouble));
      EXPECT_EQ(relative_error(embedding(ids, w), y), 0);
      embedding_backward(ids, dy, w, padding);
      EXPECT_LE(relative_error(w.grad, expected.grad() + 1), tolerance);
      if (padding) {
        EXPECT_TRUE(w.grad.select(0, 3).eq(1).all().item<bool>());
      }

      Param meta{table.to(at::kMeta), w.grad.to(at::kMeta)};
      EXPECT_EQ(embedding(ids.to(at::kMeta), meta).sizes(), y.sizes());
      embedding_backward(ids.to(at::kMeta), dy.to(at::kMeta), meta, padding);
    }
  }
  Param w = param(random({5, 4}));
  const Tensor none = at::empty({2, 0}, at::kLong);
  EXPECT_EQ(embedding(none, w).sizes(), at::IntArrayRef({2, 0, 4}));
  embedding_backward(none, at::empty({2, 0, 4}, at::kDouble), w, 1);
  EXPECT_EQ(w.grad.abs().sum().item<double>(), 0);
  Param frozen{w.data, {}};
  embedding_backward(ids, random({2, 3, 4}), frozen, {});
  EXPECT_FALSE(embedding(ids, w).requires_grad());
}

TEST(Rope, RotatesPairsAsComplexNumbers) {
  ModelConfig config;
  config.qk_rope_head_dim = 6;
  config.rope_theta = 100;
  const Tensor positions = at::tensor({0, 1, 2, 5, 6, 7}, at::kLong).view({2, 3});
  const Op op = [&](const Tensors& x, Params&) {
    return rope(x[0], rope_tables(config, positions.to(x[0].device()), at_least_fp32(x[0].scalar_type())));
  };
  const Oracle oracle = [&](const Tensors& x, const Tensors&) {
    const Tensor frequency = at::tensor({1.0, std::pow(100, -1 / 3.0), std::pow(100, -2 / 3.0)}, at::kDouble);
    const Tensor angle = (positions.unsqueeze(-1) * frequency).unsqueeze(2);
    const Tensor turned =
        at::view_as_complex(x[0].view({2, 3, -1, 3, 2})) * at::polar(at::ones_like(angle), angle);
    return at::cat({at::real(turned), at::imag(turned)}, -1);
  };
  expect_agrees({random({2, 3, 4, 6})}, {}, op, oracle);
  expect_agrees({random({2, 3, 1, 6})}, {}, op, oracle);
  expect_jacobian({random({2, 3, 1, 6})}, {}, op);
  const Tensor none = at::empty({2, 0}, at::kLong);
  EXPECT_EQ(rope(random({2, 0, 1, 6}), rope_tables(config, none, at::kDouble)).numel(), 0);
}

// DeepSeek-V3's own numbers: factor 40 over 4096 tokens, 64 dims, mscale = mscale_all_dim = 1.
TEST(Rope, YarnKeepsFastPairsAndInterpolatesSlowOnes) {
  const ModelConfig config = *ModelConfig::preset("671b");
  ASSERT_TRUE(config.yarn);
  const RopeTables tables = rope_tables(config, at::ones({1, 1}, at::kLong), at::kDouble);
  const Tensor angle = at::atan2(tables.sin, tables.cos).view({-1});
  const auto kept = [](int64_t pair) { return std::pow(10000.0, -2.0 * static_cast<double>(pair) / 64); };
  ASSERT_EQ(angle.size(0), 32);
  // The ramp runs from pair 10 to pair 23: 32 and 1 turns in 4096 tokens.
  for (int64_t pair : {0, 5, 10}) EXPECT_NEAR(angle[pair].item<double>() / kept(pair), 1, 1e-12) << pair;
  for (int64_t pair : {23, 31}) EXPECT_NEAR(angle[pair].item<double>() * 40 / kept(pair), 1, 1e-12) << pair;
  const double ramp = 4.0 / 13;
  EXPECT_NEAR(angle[14].item<double>() / kept(14), ramp / 40 + (1 - ramp), 1e-12);
  EXPECT_NEAR((tables.cos.square() + tables.sin.square()).max().item<double>(), 1, 1e-12);
  EXPECT_NEAR(attention_scale(config), std::pow(0.1 * std::log(40) + 1, 2) / std::sqrt(192), 1e-15);
}

}  // namespace
}  // namespace dsv3
