// permute and grouped_mlp.

#include "dsv3/ops/grouped_mlp.h"
#include "dsv3/ops/permute.h"
#include "dsv3/ops/router.h"
#include "support/ops.h"

namespace dsv3 {
namespace {

using namespace test;
using at::Tensor;

constexpr int64_t kExperts = 5, kTopK = 3;

Tensor ids_of(std::vector<int64_t> values) {
  const auto tokens = static_cast<int64_t>(values.size()) / kTopK;
  return at::tensor(values, at::kLong).view({tokens, kTopK});
}
// Expert 2 has no rows; then none; then every choice is one expert's (forced routing).
std::vector<Tensor> routings() {
  return {ids_of({4, 0, 1, 1, 3, 0, 0, 1, 4, 3, 4, 1}), at::empty({0, kTopK}, at::kLong),
          at::full({40, kTopK}, 1, at::kLong)};
}

// Choices t · K + k in the order of experts, then of tokens.
std::vector<int64_t> sorted_choices(const Tensor& ids) {
  std::vector<int64_t> order;
  for (int64_t e = 0; e < kExperts; ++e)
    for (int64_t j = 0; j < ids.numel(); ++j)
      if (ids.view({-1})[j].item<int64_t>() == e) order.push_back(j);
  return order;
}

TEST(Permute, GoesToExpertMajorRowsAndBack) {
  for (const Tensor& ids : routings()) {
    SCOPED_TRACE(ids.size(0));
    const int64_t T = ids.size(0), R = T * kTopK;
    const std::vector<int64_t> order = sorted_choices(ids);
    const auto permutation = [&](const Tensor& like) {
      return permutation_of(ids.to(like.device()), kExperts);
    };

    expect_agrees(
        {random({T, 4})}, {},
        [&](const Tensors& x, Params&) { return permute(options(), x[0], permutation(x[0])); },
        [&](const Tensors& x, const Tensors&) {
          Tensors rows = {x[0].narrow(0, 0, 0)};
          for (int64_t j : order) rows.push_back(x[0].narrow(0, j / kTopK, 1));
          return at::cat(rows);
        });
    const Op back = [&](const Tensors& x, Params&) { return unpermute(options(), x[0], permutation(x[0])); };
    expect_agrees({random({R, 4})}, {}, back, [&](const Tensors& x, const Tensors&) {
      Tensor y = x[0].sum() * at::zeros({T, 4}, at::kDouble);
      for (int64_t r = 0; r < R; ++r) {
        Tensor place = at::zeros({T, 1}, at::kDouble);
        place[order[r] / kTopK] = 1;
        y = y + place * x[0][r];
      }
      return y;
    });
    expect_agrees(
        {random({T, kTopK})}, {},
        [&](const Tensors& x, Params&) { return permute_weights(x[0], permutation(x[0])); },
        [&](const Tensors& x, const Tensors&) {
          Tensors rows = {x[0].reshape({-1}).narrow(0, 0, 0)};
          for (int64_t j : order) rows.push_back(x[0].reshape({-1}).narrow(0, j, 1));
          return at::cat(rows);
        });
    if (T < 10) expect_jacobian({random({R, 4})}, {}, back);
  }
}

// In bf16 1 + 2^-9 is 1, so a sum that rounds in between would lose all small terms.
TEST(Permute, CombineSumsInFp32AndRoundsOnce) {
  Tensor rows = at::full({kTopK, 2}, 0x1p-8, at::kBFloat16);
  rows[0].fill_(1);
  const Tensor y = unpermute(options(), rows, permutation_of(ids_of({0, 1, 2}), kExperts));
  EXPECT_TRUE(y.eq(1 + 0x1p-7).all().item<bool>()) << y;
}

constexpr int64_t kHidden = 16, kWidth = 8;

struct Routed {
  const char* name;
  std::vector<int64_t> rows_e;
};
const std::vector<Routed> kRouted = {{"an expert without rows", {3, 0, 6, 1}},
                                     {"first and last without rows", {0, 5, 4, 0}},
                                     {"all to one", {0, 0, 70, 0}},
                                     {"no rows", {0, 0, 0, 0}}};
constexpr GroupedGemm kGrouped[] = {GroupedGemm::automatic, GroupedGemm::loop, GroupedGemm::mkl,
                                    GroupedGemm::grouped_mm};

Op mlp(GroupedGemm kind, const std::vector<int64_t>& rows_e) {
  return [=](const Tensors& x, Params& w) {
    OpsOptions ops = options();
    ops.grouped = kind;
    return grouped_mlp(ops, x[0], x[1].to(at_least_fp32(x[1].scalar_type())), rows_e, w[0], w[1]);
  };
}

TEST(GroupedMlp, EveryKindAgreesWithALoopOverExperts) {
  for (const auto& [name, rows_e] : kRouted) {
    int64_t R = 0;
    for (int64_t rows : rows_e) R += rows;
    const Tensors x = {random({R, kHidden}), random({R}, 2)};
    const Tensors w = {random({4, 2 * kWidth, kHidden}, 3) * 0.3, random({4, kHidden, kWidth}, 4)};
    const Oracle oracle = [&, &rows_e = rows_e](const Tensors& x, const Tensors& w) {
      Tensors y;
      int64_t begin = 0;
      for (size_t e = 0; e < rows_e.size(); begin += rows_e[e++]) {
        const auto expert = static_cast<int64_t>(e);
        const Tensor own = x[0].narrow(0, begin, rows_e[e]);
        const Tensor gate = at::linear(own, w[0][expert].narrow(0, 0, kWidth));
        const Tensor up = at::linear(own, w[0][expert].narrow(0, kWidth, kWidth));
        y.push_back(at::linear(gate * gate.sigmoid() * up, w[1][expert]) *
                    x[1].narrow(0, begin, rows_e[e]).unsqueeze(1));
      }
      return at::cat(y);
    };
    for (GroupedGemm kind : kGrouped) {
      SCOPED_TRACE(std::string(name) + ", kind " + std::to_string(static_cast<int>(kind)));
      expect_agrees(x, w, mlp(kind, rows_e), oracle);
      if (R < 20) expect_jacobian(x, w, mlp(kind, rows_e));
    }
  }
}

TEST(GroupedMlp, TakesArgumentsThatAreNotContiguous) {
  const std::vector<int64_t> rows_e = {2, 3};
  const Tensors x = {random({kHidden, 5}), random({5, 2}, 2)};
  const Tensors w = {random({2, 2 * kWidth, kHidden}, 3), random({2, kHidden, kWidth}, 4)};
  for (GroupedGemm kind : kGrouped) {
    const Op plain = mlp(kind, rows_e);
    const Gradients strided = run_op(x, w, [&](const Tensors& x, Params& w) {
      return plain({x[0].t(), x[1].select(1, 1)}, w).t();
    });
    const Gradients whole = run_op(x, w, [&](const Tensors& x, Params& w) {
      return plain({x[0].t().contiguous(), x[1].select(1, 1).contiguous()}, w).t();
    });
    expect_equal(strided, whole, 1e-14);
  }
}

// The path of the planner: routing without data, the counts given from outside.
TEST(GroupedMlp, MetaTensorsWalkFromRoutingToCombine) {
  const int64_t T = 12;
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kBFloat16);
  const Tensor x = at::empty({T, kHidden}, meta).requires_grad_(true);
  const auto weight = [&](at::IntArrayRef shape) {
    return Param{at::empty(shape, meta), at::empty(shape, meta.dtype(at::kFloat))};
  };
  Param gate = weight({kExperts, kHidden}), gate_up = weight({kExperts, 2 * kWidth, kHidden});
  Param down = weight({kExperts, kHidden, kWidth});
  const Routing routing = router(x, gate, at::empty({kExperts}, meta.dtype(at::kFloat)), {.top_k = kTopK});
  const Permutation permutation = permutation_of(routing.ids_TK, kExperts);
  const Tensor rows =
      grouped_mlp(options(), permute(options(), x, permutation),
                  permute_weights(routing.weight_TK, permutation), {36, 0, 0, 0, 0}, gate_up, down);
  EXPECT_EQ(rows.sizes(), at::IntArrayRef({T * kTopK, kHidden}));
  const Tensor y = unpermute(options(), rows, permutation);
  EXPECT_EQ(y.sizes(), x.sizes());
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  y.backward(at::empty_like(y));
  EXPECT_EQ(x.grad().sizes(), x.sizes());
}

}  // namespace
}  // namespace dsv3
