// The rules of docs/design.md, "Parameters are not autograd leaves", for every operator that owns weights.

#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>

#include "dsv3/ops/embedding.h"
#include "dsv3/ops/grouped_mlp.h"
#include "dsv3/ops/linear.h"
#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/router.h"
#include "dsv3/ops/token_logprob.h"
#include "support/ops.h"

namespace dsv3 {
namespace {

using namespace test;
using at::Tensor;

struct WeightOp {
  const char* name;
  Tensors weights;
  std::function<Tensor(const Tensor& x, Params& w)> call;  // x: [6, 8]
};

const Tensor kInput = random({6, 8});

std::vector<WeightOp> weight_ops() {
  return {
      {"linear", {random({5, 8}, 2)}, [](const Tensor& x, Params& w) { return linear(options(), x, w[0]); }},
      {"linear with bias",
       {random({5, 8}, 2), random({5}, 3)},
       [](const Tensor& x, Params& w) { return linear(options(), x, w[0], &w[1]); }},
      {"rms_norm",
       {random({8}, 2)},
       [](const Tensor& x, Params& w) { return rms_norm(options(), x, w[0], 1e-6); }},
      {"router",
       {random({4, 8}, 2)},
       [](const Tensor& x, Params& w) {
         return router(x, w[0], at::zeros({4}), {.top_k = 2, .normalise = false}).weight_TK;
       }},
      {"grouped_mlp",
       {random({3, 16, 8}, 2), random({3, 8, 8}, 3)},
       [](const Tensor& x, Params& w) {
         const Tensor weight = at::linspace(0.5, 1.5, 6, at::dtype(at_least_fp32(x.scalar_type())));
         return grouped_mlp(options(), x, weight, {4, 0, 2}, w[0], w[1]);
       }},
      {"token_logprob",
       {random({7, 8}, 2)},
       [](const Tensor& x, Params& w) {
         const Tensor targets = at::tensor({1, 6, -100, 0, 3, 3}, at::kLong);
         return token_logprob(options(), x, w[0], targets).logp_T;
       }},
  };
}

Params params_of(const WeightOp& op, at::ScalarType dtype = at::kDouble) {
  Params out;
  for (const Tensor& w : op.weights) out.push_back(param(w.to(dtype)));
  return out;
}

Tensor fixed_dy(const Tensor& y) { return random(y.sizes(), 77).to(y.options()); }

// What one ordinary forward and backward gives.
Gradients ordinary(const WeightOp& op, at::ScalarType dtype = at::kDouble) {
  return run_op({kInput.to(dtype)}, to(op.weights, dtype),
                [&](const Tensors& x, Params& w) { return op.call(x[0], w); });
}

TEST(ParamRules, GradientsAreAddedInFp32) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16})
    for (const WeightOp& op : weight_ops()) {
      SCOPED_TRACE(op.name);
      const Gradients once = ordinary(op, dtype);
      Params params = params_of(op, dtype);
      for (Param& p : params) p.grad.fill_(1024);  // in bf16 the next number is 1032
      for (int i = 0; i < 2; ++i) {
        const Tensor y = op.call(leaf(kInput.to(dtype)), params);
        y.backward(fixed_dy(y));
      }
      for (size_t i = 0; i < params.size(); ++i) {
        EXPECT_EQ(params[i].grad.scalar_type(), at_least_fp32(dtype));
        EXPECT_LT((params[i].grad - 1024 - 2 * once.dw[i]).abs().max().item<double>(), 1e-3)
            << "weight " << i;
      }
    }
}

TEST(ParamRules, ManySmallGradientsAreNotLost) {
  Param w{at::ones({16, 16}, at::kBFloat16), at::ones({16, 16}, at::kFloat)};
  // 1 + 2^-8 is 1 in bf16.
  Param table{w.data, w.grad.clone()};
  const Tensor ids = at::zeros({1, 1}, at::kLong), dy = at::full({1, 16}, 0x1p-8, at::kBFloat16);
  for (int i = 0; i < 64; ++i) {
    linear(options(), leaf(at::ones({1, 16}, at::kBFloat16)), w).backward(dy);
    embedding_backward(ids, dy, table, {});
  }
  EXPECT_TRUE(w.grad.eq(1.25).all().item<bool>());
  EXPECT_TRUE(table.grad[0].eq(1.25).all().item<bool>());
}

// Between the passes the buffer is overwritten and freed; backward finds the weights where Param points then.
TEST(ParamRules, BackwardReadsTheDataOfItsOwnTime) {
  for (const WeightOp& op : weight_ops()) {
    SCOPED_TRACE(op.name);
    const Gradients undisturbed = ordinary(op);
    Params params = params_of(op);
    const Tensor x = leaf(kInput);
    const Tensor y = op.call(x, params);
    for (Param& p : params) {
      const Tensor again = p.data.clone();
      p.data.fill_(NAN);
      p.data = Tensor();
      p.data = again;
    }
    y.backward(fixed_dy(y));
    EXPECT_LE(relative_error(x.grad(), undisturbed.dx[0]), 1e-14);
    for (size_t i = 0; i < params.size(); ++i)
      EXPECT_LE(relative_error(params[i].grad, undisturbed.dw[i]), 1e-14);
  }
  // Other values, in the same memory: dx = dy w of the new w.
  Param w = param(random({5, 8}, 2));
  const Tensor x = leaf(kInput), y = linear(options(), x, w), dy = fixed_dy(y), other = random({5, 8}, 9);
  w.data.copy_(other);
  y.backward(dy);
  EXPECT_LE(relative_error(x.grad(), dy.matmul(other)), 1e-14);
}

TEST(ParamRules, ATrainableWeightOutsideTheGraphIsRefused) {
  for (const WeightOp& op : weight_ops()) {
    SCOPED_TRACE(op.name);
    // Each weight alone trainable.
    for (size_t i = 0; i < op.weights.size(); ++i) {
      Params params = params_of(op);
      for (size_t j = 0; j < params.size(); ++j)
        if (j != i) params[j].grad = Tensor();
      EXPECT_THROW(op.call(kInput, params), std::logic_error) << "weight " << i;
      at::NoGradGuard no_grad;
      EXPECT_NO_THROW(op.call(kInput, params));
    }
    Params frozen = params_of(op);
    for (Param& p : frozen) p.grad = Tensor();
    EXPECT_NO_THROW(op.call(kInput, frozen));
    EXPECT_FALSE(op.call(kInput, frozen).requires_grad());
  }
}

TEST(ParamRules, AFrozenWeightGetsNoGradientAndPassesItsInputs) {
  for (at::ScalarType dtype : {at::kDouble, at::kBFloat16})
    for (const WeightOp& op : weight_ops()) {
      SCOPED_TRACE(op.name);
      Params params = params_of(op, dtype);
      for (Param& p : params) p.grad = Tensor();
      const Tensor x = leaf(kInput.to(dtype)), y = op.call(x, params);
      y.backward(fixed_dy(y));
      EXPECT_LE(relative_error(x.grad(), ordinary(op, dtype).dx[0]), 1e-14);
      for (const Param& p : params) EXPECT_FALSE(p.grad.defined());
    }
}

// autograd::grad(y, {x}) would prune the branch of z and leave its weight without a gradient.
TEST(ParamRules, BackwardReachesWeightsOfBranchesThatNoOneAsksFor) {
  for (const WeightOp& op : weight_ops()) {
    SCOPED_TRACE(op.name);
    Params params = params_of(op), branch = params_of(op);
    const Tensor x = leaf(kInput), boundary = kInput.detach().requires_grad_(true);
    const Tensor y = op.call(x, params) + op.call(boundary * 1, branch);
    y.backward(fixed_dy(y));
    const Gradients once = ordinary(op);
    for (size_t i = 0; i < params.size(); ++i)
      EXPECT_LE(relative_error(branch[i].grad, once.dw[i]), 1e-14) << "weight " << i;
  }
}

TEST(ParamRules, ParallelForRunsTwoChunksOnTwoThreads) {
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::pair<int64_t, int64_t>> chunks;
  std::set<int> ids;
  at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    chunks.emplace(begin, end);
    ids.insert(at::get_thread_num());
  });
  at::set_num_threads(threads);
  EXPECT_EQ(chunks, (std::set<std::pair<int64_t, int64_t>>{{0, 1}, {1, 2}}));
  EXPECT_EQ(ids, (std::set<int>{0, 1}));
}

// Their sums differ from run to run on two threads.
TEST(ParamRules, NoAdvancedIndexingInTheEngine) {
  int files = 0;
  for (const char* room : {"ops", "model", "parallel"}) {
    const auto folder = std::filesystem::path(DSV3_SOURCE_DIR) / "src/dsv3" / room;
    if (!std::filesystem::exists(folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != ".cpp" && entry.path().extension() != ".h") continue;
      ++files;
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      for (const char* banned : {"index_put", ".index({", "at::index("})
        EXPECT_EQ(text.str().find(banned), std::string::npos) << entry.path() << ": " << banned;
    }
  }
  EXPECT_GT(files, 20);
}

}  // namespace
}  // namespace dsv3
