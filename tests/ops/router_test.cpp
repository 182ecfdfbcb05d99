#include "dsv3/ops/router.h"

#include <algorithm>
#include <numeric>

#include "dsv3/ops/balance_loss.h"
#include "support/ops.h"

namespace dsv3 {
namespace {

using namespace test;
using at::Tensor;

std::vector<int64_t> best(const std::vector<double>& scores, int64_t k) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  order.resize(k);
  return order;
}

// The choice as section 2.1.2 tells it, a token at a time.
Tensor choose(const Tensor& scores_TE, const Tensor& bias_E, const RouterOptions& options) {
  const int64_t T = scores_TE.size(0), E = scores_TE.size(1), width = E / options.groups;
  Tensor ids = at::empty({T, options.top_k}, at::kLong);
  for (int64_t t = 0; t < T; ++t) {
    std::vector<double> scores(E), groups(options.groups);
    for (int64_t e = 0; e < E; ++e) scores[e] = scores_TE[t][e].item<double>() + bias_E[e].item<double>();
    for (int64_t g = 0; g < options.groups; ++g) {
      std::vector<double> own(scores.begin() + g * width, scores.begin() + (g + 1) * width);
      std::sort(own.rbegin(), own.rend());
      groups[g] = own[0] + (width > 1 ? own[1] : 0);
    }
    const auto kept = best(groups, options.kept_groups);
    for (int64_t e = 0; e < E; ++e)
      if (std::find(kept.begin(), kept.end(), e / width) == kept.end()) scores[e] = -INFINITY;
    const auto chosen = best(scores, options.top_k);
    for (int64_t k = 0; k < options.top_k; ++k) ids[t][k] = chosen[k];
  }
  return ids;
}

const RouterOptions kOptions{.top_k = 3, .groups = 4, .kept_groups = 2, .scale = 2.5};

// Weights and scores side by side, so that both gradients flow.
Op router_op(const Tensor& bias, const RouterOptions& options, const Tensor& replay = {}) {
  return [=](const Tensors& x, Params& w) {
    const auto device = x[0].device();
    const Routing out =
        router(x[0], w[0], bias.to(device), options, replay.defined() ? replay.to(device) : replay);
    return at::cat({out.weight_TK, out.scores_TE}, 1);
  };
}
Oracle router_oracle(const Tensor& bias, const RouterOptions& options, const Tensor& replay = {}) {
  return [=](const Tensors& x, const Tensors& w) {
    const Tensor scores = x[0].matmul(w[0].t()).sigmoid();
    const Tensor ids = replay.defined() ? replay : choose(scores.detach(), bias, options);
    Tensor weight = scores.gather(1, ids);
    if (options.normalise) weight = weight / (weight.sum(1, true) + 1e-20);
    return at::cat({weight * options.scale, scores}, 1);
  };
}

TEST(Router, AgreesWithTheEquations) {
  RouterOptions raw = kOptions, flat = kOptions;
  raw.normalise = false;
  flat.groups = flat.kept_groups = 1;
  const Tensor bias = random({16}, 3),
               replay = at::randint(16, {9, 3}, at::detail::createCPUGenerator(4), at::kLong);
  for (const RouterOptions& options : {kOptions, raw, flat}) {
    for (int64_t T : {9, 0}) {
      expect_agrees({random({T, 8})}, {random({16, 8}, 2)}, router_op(bias, options),
                    router_oracle(bias, options));
    }
    expect_agrees({random({9, 8})}, {random({16, 8}, 2)}, router_op(bias, options, replay),
                  router_oracle(bias, options, replay));
    expect_jacobian({random({9, 8})}, {random({16, 8}, 2)}, router_op(bias, options));
  }
}

TEST(Router, ComputesLogitsInFp32WhateverTheDtype) {
  const Tensors x = {random({9, 64}).to(at::kBFloat16)}, w = {(random({16, 64}, 2) * 0.1).to(at::kBFloat16)};
  const Gradients got = run_op(x, w, router_op(at::zeros({16}), kOptions));
  EXPECT_EQ(got.y.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(got.y, run_oracle(x, w, router_oracle(at::zeros({16}), kOptions), got.dy).y),
            1e-6);
}

// Every biased score is negative: a mask of 0.0 would make the dropped group's experts the best.
TEST(Router, DroppedGroupsStayDroppedWhenScoresAreNegative) {
  const Tensor scores = at::tensor({0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}, at::kDouble).view({1, 8});
  const Tensor bias = at::full({8}, -2.0, at::kDouble);
  const RouterOptions options{.top_k = 3, .groups = 4, .kept_groups = 2};
  EXPECT_TRUE(select_experts(scores, bias, options).equal(at::tensor({0, 1, 7}, at::kLong).view({1, 3})));
  const RouterOptions all{.top_k = 4, .groups = 4, .kept_groups = 2};
  EXPECT_TRUE(select_experts(scores, bias, all).equal(at::tensor({0, 1, 7, 6}, at::kLong).view({1, 4})));
}

TEST(Router, TiesGoToTheLowestIndex) {
  const Tensor scores = at::full({40, 64}, 0.5);
  const Tensor ids = select_experts(scores, at::zeros({64}), {.top_k = 8, .groups = 8, .kept_groups = 4});
  EXPECT_TRUE(ids.equal(at::arange(8).expand({40, 8})));
}

TEST(Router, BiasMovesTheChoiceNeverTheWeight) {
  const Tensor x = leaf(random({5, 8}));
  Param w = param(random({16, 8}, 2));
  Tensor bias = at::zeros({16}, at::kDouble);
  bias[13] = 10;
  bias[14] = 9;
  const Routing out = router(x, w, bias, kOptions);
  const Tensor scores = x.matmul(w.data.t()).sigmoid();
  EXPECT_TRUE(out.ids_TK.narrow(1, 0, 2).equal(at::tensor({13, 14}, at::kLong).expand({5, 2})));
  const Tensor chosen = scores.gather(1, out.ids_TK);
  EXPECT_LE(relative_error(out.weight_TK, chosen / chosen.sum(1, true) * 2.5), 1e-12);
  EXPECT_LE(relative_error(out.weight_TK.sum(1), at::full({5}, 2.5)), 1e-12);
}

// Scores that underflow to 0: the sum is kept from 0 by 1e-20.
TEST(Router, VanishingScoresGiveFiniteWeights) {
  const Tensors x = {at::full({2, 8}, 100.0, at::kFloat)}, w = {at::full({16, 8}, -100.0, at::kFloat)};
  const Gradients got = run_op(x, w, router_op(at::zeros({16}), kOptions));
  EXPECT_EQ(got.y.abs().sum().item<double>(), 0);
  EXPECT_TRUE(got.dx[0].isfinite().all().item<bool>());
}

TEST(Router, CountsOnlyValidTokens) {
  const Tensor ids = at::tensor({0, 2, 2, 3, 0, 3}, at::kLong).view({3, 2});
  const Tensor valid = at::tensor({1, 0, 1}, at::kLong).to(at::kBool);
  EXPECT_TRUE(count_tokens(ids, {}, 5).equal(at::tensor({2, 0, 2, 2, 0}, at::kLong)));
  EXPECT_TRUE(count_tokens(ids, valid, 5).equal(at::tensor({2, 0, 1, 1, 0}, at::kLong)));
  EXPECT_TRUE(count_tokens(ids.narrow(0, 0, 0), {}, 5).equal(at::zeros({5}, at::kLong)));
  EXPECT_EQ(count_tokens(ids.to(at::kMeta), valid.to(at::kMeta), 5).sizes(), at::IntArrayRef({5}));
}

// Equations 17 to 20, a sequence and an expert at a time.
Tensor balance_oracle(const Tensor& scores, const Tensor& ids, const Tensor& valid, int64_t B,
                      int64_t sequences, const BalanceOptions& options) {
  const int64_t S = scores.size(0) / std::max<int64_t>(B, 1), E = scores.size(1), K = ids.size(1);
  Tensor total = (scores * 0).sum();
  for (int64_t b = 0; b < B; ++b) {
    std::vector<int64_t> counts(E);
    Tensor share = at::zeros({E}, at::kDouble);
    int64_t T = 0;
    for (int64_t t = b * S; t < (b + 1) * S; ++t) {
      if (valid.defined() && !valid[t].item<bool>()) continue;
      ++T;
      share = share + scores[t] / scores[t].sum();
      const Tensor chosen = options.indicator == BalanceIndicator::selected
                                ? ids[t]
                                : choose(scores[t].detach().unsqueeze(0), at::zeros({E}), {.top_k = K})[0];
      for (int64_t k = 0; k < K; ++k) ++counts[chosen[k].item<int64_t>()];
    }
    for (int64_t e = 0; e < E && T > 0; ++e)
      total = total + share[e] * static_cast<double>(E * counts[e]) / static_cast<double>(K * T * T);
  }
  return total * options.alpha * static_cast<double>(options.kind == BalanceKind::batch ? sequences : 1);
}

TEST(BalanceLoss, AgreesWithTheEquations) {
  const Tensor ids = std::get<1>(random({12, 8}, 4).topk(2));
  Tensor valid = at::ones({12}, at::kBool);
  valid.narrow(0, 2, 6).fill_(false);  // the second sequence has none
  for (BalanceKind kind : {BalanceKind::batch, BalanceKind::sequence})
    for (BalanceIndicator indicator : {BalanceIndicator::unbiased, BalanceIndicator::selected})
      for (const Tensor& mask : {Tensor(), valid})
        for (int64_t T : {12, 0}) {
          const BalanceOptions balance{.kind = kind, .indicator = indicator, .alpha = 0.3};
          const auto cut = [&](const Tensor& t) { return t.defined() ? t.narrow(0, 0, T) : t; };
          const Op op = [&](const Tensors& x, Params&) {
            const auto move = [&](const Tensor& t) { return t.defined() ? cut(t).to(x[0].device()) : t; };
            const Tensor scores = x[0].to(at_least_fp32(x[0].scalar_type())).sigmoid();
            return balance_loss({move(ids), {}, scores}, move(mask), 3, balance);
          };
          const Oracle oracle = [&](const Tensors& x, const Tensors&) {
            return balance_oracle(x[0].sigmoid(), cut(ids), cut(mask), kind == BalanceKind::sequence ? 3 : 1,
                                  3, balance);
          };
          expect_agrees({random({T, 8})}, {}, op, oracle);
          expect_jacobian({random({T, 8})}, {}, op);
        }
}

TEST(BalanceLoss, NoSequencesGiveZero) {
  for (BalanceKind kind : {BalanceKind::batch, BalanceKind::sequence}) {
    const Tensor scores = leaf(at::empty({0, 8}));
    const Tensor loss =
        balance_loss({at::empty({0, 2}, at::kLong), {}, scores}, {}, 0, {.kind = kind, .alpha = 1});
    EXPECT_EQ(loss.item<double>(), 0);
    loss.backward();
  }
}

}  // namespace
}  // namespace dsv3
