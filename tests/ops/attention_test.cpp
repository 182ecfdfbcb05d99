#include "dsv3/ops/attention.h"

#include "support/ops.h"

namespace dsv3 {
namespace {

using namespace test;
using at::Tensor;

constexpr int64_t kBatch = 2, kTokens = 5, kHeads = 3;
constexpr AttentionKind kKinds[] = {AttentionKind::automatic, AttentionKind::flash, AttentionKind::math};

Tensor rows(std::initializer_list<int64_t> values) {
  return at::tensor(std::vector<int64_t>(values), at::kLong).view({kBatch, kTokens});
}

struct Mask {
  const char* name;
  Tensor padding, documents;
};
std::vector<Mask> masks() {
  const Tensor right = rows({1, 1, 1, 1, 1, 1, 1, 1, 0, 0}).to(at::kBool);
  const Tensor left = rows({1, 1, 1, 1, 1, 0, 0, 1, 1, 1}).to(at::kBool);
  const Tensor documents = rows({0, 0, 1, 1, 1, 0, 1, 1, 2, 2});
  return {{"causal", {}, {}},
          {"padded right", right, {}},
          {"padded left", left, {}},
          {"documents", {}, documents},
          {"documents, padded left", left, documents}};
}

// [B, 1, S, S], one pair at a time.
Tensor allowed(const Mask& mask) {
  Tensor out = at::zeros({kBatch, 1, kTokens, kTokens}, at::kBool);
  for (int64_t b = 0; b < kBatch; ++b)
    for (int64_t q = 0; q < kTokens; ++q)
      for (int64_t k = 0; k <= q; ++k) {
        const bool real = !mask.padding.defined() || mask.padding[b][k].item<bool>();
        const bool same = !mask.documents.defined() ||
                          mask.documents[b][q].item<int64_t>() == mask.documents[b][k].item<int64_t>();
        out[b][0][q][k] = real && same;
      }
  return out;
}

AttentionMask on(const Mask& mask, const Tensor& like) {
  const auto move = [&](const Tensor& t) { return t.defined() ? t.to(like.device()) : t; };
  return AttentionMask::create(move(mask.padding), move(mask.documents));
}

Tensors inputs(const AttentionDims& dims) {
  return {random({kBatch, kTokens, kHeads, dims.nope}), random({kBatch, kTokens, kHeads, dims.rope}, 2),
          random({kBatch, kTokens, kHeads, dims.nope + dims.v}, 3),
          random({kBatch, kTokens, 1, dims.rope}, 4)};
}

Op attention_op(AttentionKind kind, const Mask& mask, const AttentionDims& dims) {
  return [=](const Tensors& x, Params&) {
    OpsOptions ops = options();
    ops.attention = kind;
    return attention(ops, x[0], x[1], x[2], x[3], on(mask, x[0]), dims);
  };
}

// Rows that may attend to nothing promise no value: both sides count them as 0.
Tensor without_dead_rows(const Tensor& y, const Tensor& allowed_B1SS) {
  return y * allowed_B1SS.any(-1).view({kBatch, kTokens, 1, 1}).to(y.options());
}

TEST(Attention, EveryKindAgreesWithSoftmax) {
  // v narrower than, as wide as, wider than the key.
  for (int64_t v : {3, 6, 9}) {
    const AttentionDims dims{.nope = 4, .rope = 2, .v = v, .scale = 0.7};
    for (const Mask& mask : masks()) {
      const Tensor may = allowed(mask);
      const Oracle oracle = [&](const Tensors& x, const Tensors&) {
        const Tensor k_rope = x[3].expand({kBatch, kTokens, kHeads, dims.rope});
        const Tensor scores = at::einsum("bqnd,bknd->bnqk", {x[0], x[2].narrow(-1, 0, dims.nope)}) +
                              at::einsum("bqnd,bknd->bnqk", {x[1], k_rope});
        const Tensor weights = (scores * dims.scale).masked_fill(may.logical_not(), -1e30).softmax(-1);
        const Tensor y = at::einsum("bnqk,bknd->bqnd", {weights, x[2].narrow(-1, dims.nope, dims.v)});
        return without_dead_rows(y, may);
      };
      for (AttentionKind kind : kKinds) {
        SCOPED_TRACE(std::string(mask.name) + ", v " + std::to_string(v) + ", kind " +
                     std::to_string(static_cast<int>(kind)));
        const Op plain = attention_op(kind, mask, dims);
        const Op op = [&](const Tensors& x, Params& w) { return without_dead_rows(plain(x, w), may); };
        // bf16: a score of 4 is off by 2^-7, and so is its weight.
        expect_agrees(inputs(dims), {}, op, oracle, 2e-2);
        if (v == 3 && kind != AttentionKind::flash) expect_jacobian(inputs(dims), {}, op);
      }
    }
  }
}

TEST(Attention, RowsThatAttendToNothingStayFinite) {
  const AttentionDims dims{.nope = 4, .rope = 2, .v = 3, .scale = 0.7};
  const Tensor padding = rows({0, 0, 0, 0, 0, 0, 0, 1, 1, 1}).to(at::kBool);
  for (AttentionKind kind : kKinds)
    for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const Gradients got = run_op(to(inputs(dims), dtype), {}, attention_op(kind, {"", padding, {}}, dims));
      EXPECT_TRUE(got.y.isfinite().all().item<bool>());
      for (const Tensor& dx : got.dx) EXPECT_TRUE(dx.isfinite().all().item<bool>());
    }
}

TEST(Attention, MaskIsBuiltFromPaddingAndDocuments) {
  EXPECT_FALSE(AttentionMask::create({}, {}).allowed_B1SS.defined());
  for (const Mask& mask : masks()) {
    if (!mask.padding.defined() && !mask.documents.defined()) continue;
    EXPECT_TRUE(on(mask, at::empty({0})).allowed_B1SS.equal(allowed(mask))) << mask.name;
  }
}

TEST(Attention, NoSequencesGiveNoRows) {
  const AttentionDims dims{.nope = 4, .rope = 2, .v = 3, .scale = 0.7};
  for (AttentionKind kind : kKinds) {
    Tensors x;
    for (const Tensor& t : inputs(dims)) x.push_back(t.narrow(0, 0, 0));
    EXPECT_EQ(run_op(x, {}, attention_op(kind, {"", {}, {}}, dims)).y.sizes(),
              at::IntArrayRef({0, kTokens, kHeads, 3}));
  }
}

TEST(LatentAttention, EqualsAttentionOverExpandedKeys) {
  constexpr int64_t kLatent = 7;
  for (int64_t v : {3, 9}) {
    const AttentionDims dims{.nope = 4, .rope = 2, .v = v, .scale = 0.7};
    const Tensor latent = random({kBatch, kTokens, kLatent}, 5);
    const Tensor kv_b = random({kHeads * (dims.nope + v), kLatent}, 6);
    const Tensors x = inputs(dims);
    const Tensor kv = at::linear(latent, kv_b).view({kBatch, kTokens, kHeads, dims.nope + v});
    for (const Mask& mask : masks()) {
      const Tensor may = allowed(mask);
      const Tensor whole =
          without_dead_rows(attention(options(), x[0], x[1], kv, x[3], on(mask, kv), dims), may);
      // All queries at once; then the last one alone, as decoding does.
      for (int64_t first : {int64_t{0}, kTokens - 1}) {
        const int64_t Q = kTokens - first;
        const Tensor y = latent_attention(x[0].narrow(1, first, Q), x[1].narrow(1, first, Q), latent,
                                          x[3].squeeze(2), kv_b, may.narrow(2, first, Q), dims);
        const Tensor alive = may.any(-1).view({kBatch, kTokens, 1, 1}).narrow(1, first, Q);
        EXPECT_LE(relative_error(y * alive, whole.narrow(1, first, Q)), 1e-12) << mask.name;
        EXPECT_TRUE(y.isfinite().all().item<bool>());
      }
    }
    const auto meta = [](const Tensor& t) { return t.to(at::kMeta); };
    EXPECT_EQ(latent_attention(meta(x[0]), meta(x[1]), meta(latent), meta(x[3].squeeze(2)), meta(kv_b),
                               meta(allowed(masks()[0])), dims)
                  .sizes(),
              at::IntArrayRef({kBatch, kTokens, kHeads, v}));
  }
}

}  // namespace
}  // namespace dsv3
