// The all-to-all dispatch against the local one on seeded random routings: values are functions of the global
// token id, so every rank knows alone what has to come back.
#include <gtest/gtest.h>

#include <random>

#include "dsv3/parallel/all_to_all.h"
#include "support/ops.h"
#include "support/ranks.h"

namespace dsv3 {
namespace {

using at::Tensor;

struct Routed {
  Tensor y, dx, dweight;
};

struct Case {
  int64_t ranks, experts, top_k, width;
  std::vector<int64_t> tokens;            // of each rank, 0 among them
  std::vector<std::vector<int64_t>> ids;  // of each token of all ranks

  int64_t first(int64_t rank) const {
    return std::accumulate(tokens.begin(), tokens.begin() + rank, int64_t{0});
  }
};

Case random_case(uint64_t seed) {
  std::mt19937_64 random(seed);
  auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  Case c;
  c.ranks = 1 + below(4);
  c.experts = c.ranks * (1 + below(3));
  c.top_k = 1 + below(std::min<int64_t>(c.experts, 4));
  c.width = 1 + below(5);
  const int64_t load = below(4);  // 0: all to the lowest experts, 1: all to the highest, else random
  for (int64_t rank = 0; rank < c.ranks; ++rank) {
    c.tokens.push_back(below(3) == 0 ? 0 : below(9));
    for (int64_t t = 0; t < c.tokens.back(); ++t) {
      std::vector<int64_t> experts(c.experts);
      std::iota(experts.begin(), experts.end(), 0);
      if (load == 1) std::reverse(experts.begin(), experts.end());
      if (load > 1) std::shuffle(experts.begin(), experts.end(), random);
      experts.resize(c.top_k);
      c.ids.push_back(experts);
    }
  }
  return c;
}

// Element h of global token t, and the like.
Tensor token_values(int64_t first, int64_t tokens, int64_t width, double salt) {
  const Tensor t = at::arange(first, first + tokens, at::kDouble).unsqueeze(1);
  return (t * 1.7 + at::arange(width, at::kDouble) * 0.3 + salt).sin();
}

// Tokens [first, first + tokens) through experts that scale by their id; first_expert: of this rank.
Routed route(const ExpertDispatch& dispatch, const Case& c, int64_t first, int64_t tokens,
             int64_t first_expert) {
  std::vector<int64_t> flat;
  for (int64_t t = first; t < first + tokens; ++t) flat.insert(flat.end(), c.ids[t].begin(), c.ids[t].end());
  const Tensor ids = at::tensor(flat, at::kLong).view({tokens, c.top_k});
  const Tensor x = test::leaf(token_values(first, tokens, c.width, 0.1));
  const Tensor weight = test::leaf(token_values(first, tokens, c.top_k, 0.7));
  const OpsOptions ops = test::options();

  const PlanPtr plan = dispatch.plan(ids, "layer 0");
  SentRows sent = dispatch.send(ops, x, weight, plan);
  const Tensor beside = x * 3;  // what runs while rows travel
  const ExpertRows rows = dispatch.receive(std::move(sent));
  Tensor factor = at::empty({rows.x_RH.size(0), 1}, at::kDouble);
  int64_t row = 0;
  for (size_t e = 0; e < plan->rows_e.size(); ++e) {
    factor.narrow(0, row, plan->rows_e[e])
        .fill_(1.0 + static_cast<double>(first_expert) + static_cast<double>(e));
    row += plan->rows_e[e];
  }
  EXPECT_EQ(row, rows.x_RH.size(0));
  const Tensor y = dispatch.combine(ops, rows.x_RH * factor * rows.weight_R.unsqueeze(1), plan) + beside;
  y.backward(token_values(first, tokens, c.width, 0.4));
  return {y.detach(), x.grad(), weight.grad()};
}

// What has to come out, written down without any dispatch.
Routed expected(const Case& c, int64_t first, int64_t tokens) {
  const Tensor x = token_values(first, tokens, c.width, 0.1), dy = token_values(first, tokens, c.width, 0.4);
  const Tensor weight = token_values(first, tokens, c.top_k, 0.7);
  Routed out{x * 3, dy * 3, at::zeros_like(weight)};
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < c.top_k; ++k) {
      const double factor = 1.0 + static_cast<double>(c.ids[first + t][k]);
      out.y[t] += x[t] * weight[t][k] * factor;
      out.dx[t] += dy[t] * weight[t][k] * factor;
      out.dweight[t][k] += (dy[t] * x[t]).sum() * factor;
    }
  return out;
}

void expect_close(const Routed& a, const Routed& b, uint64_t seed) {
  EXPECT_TRUE(a.y.allclose(b.y, 0, 1e-12)) << "y, seed " << seed;
  EXPECT_TRUE(a.dx.allclose(b.dx, 0, 1e-12)) << "dx, seed " << seed;
  EXPECT_TRUE(a.dweight.allclose(b.dweight, 0, 1e-12)) << "dweight, seed " << seed;
}

TEST(Dispatch, FiveHundredRandomRoutings) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const Case c = random_case(seed);
    const auto all = static_cast<int64_t>(c.ids.size());
    expect_close(route(*local_dispatch(c.experts), c, 0, all, 0), expected(c, 0, all), seed);
    test::run_ranks({.replicate = 1, .shard = c.ranks, .ep = c.ranks},
                    [&](const Mesh& mesh) {
                      const int64_t rank = mesh.rank(), first = c.first(rank), tokens = c.tokens[rank];
                      const auto dispatch = all_to_all_dispatch(mesh.expert(), c.experts);
                      expect_close(route(*dispatch, c, first, tokens, rank * c.experts / c.ranks),
                                   expected(c, first, tokens), seed);
                      // A sum of integers: also that all ranks issued the same collectives, those without
                      // tokens too.
                      EXPECT_EQ(mesh.sum(std::vector{tokens}, "tokens"), std::vector{all});
                    },
                    {.chaos = seed % 2 == 1});
  }
}

// Counts travel with the first pass alone: a plan that is used again starts no exchange of counts.
TEST(Dispatch, APlanIsUsedAgainWithoutCounts) {
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 2}, [](const Mesh& mesh) {
    const auto dispatch = all_to_all_dispatch(mesh.expert(), 4);
    const Tensor ids = at::tensor({0, 3, 1, 2}, at::kLong).view({2, 2});
    const Tensor x = at::ones({2, 3}), weight = at::ones({2, 2});
    const PlanPtr plan = dispatch->plan(ids, "layer 0");
    EXPECT_EQ(mesh.expert().counters().calls, 1);
    for (int pass = 1; pass <= 2; ++pass) {
      const ExpertRows rows = dispatch->receive(dispatch->send(test::options(), x, weight, plan));
      dispatch->combine(test::options(), rows.x_RH, plan);
      EXPECT_EQ(mesh.expert().counters().calls, 1 + 3 * pass);  // rows, their weights, rows back
    }
  });
}

}  // namespace
}  // namespace dsv3
