// Generation against transformers.generate (tests/golden, tools/golden/generation.py) and against the full
// forward pass.
#include "dsv3/train/generate.h"

#include <gtest/gtest.h>

#include <set>

#include "dsv3/base/error.h"
#include "dsv3/parallel/step.h"
#include "support/tensors.h"

namespace dsv3 {
namespace {

using at::Tensor;
namespace fs = std::filesystem;

fs::path folder_of(const std::string& golden) { return fs::path(DSV3_SOURCE_DIR) / "tests/golden" / golden; }

std::unique_ptr<Model> model_of(const std::string& golden, at::ScalarType dtype = at::kFloat) {
  ExecOptions exec;
  exec.dtype = dtype;
  exec.ops.backend = test::backend();
  auto model = std::make_unique<Model>(ModelConfig::load(folder_of(golden)), Mesh::create({}), exec);
  model->load(folder_of(golden), /*allow_missing_mtp=*/true);
  return model;
}

Tensor full_logits(Model& model, const Tensor& tokens_BS, const Tensor& padding_BS = {},
                   const Tensor& positions_BS = {}) {
  MicroBatch micro;
  micro.tokens_BS = tokens_BS;
  micro.targets_BS = at::full_like(tokens_BS, kIgnoredTarget);
  micro.padding_BS = padding_BS;
  micro.positions_BS = positions_BS;
  ForwardOptions options;
  options.logits = true;
  return model.evaluate(micro, options).logits_BSV;
}

class Generation : public testing::TestWithParam<std::string> {
 protected:
  Tensor golden(const std::string& file) const {
    Tensor values = test::read_npy(folder_of(GetParam()) / (file + ".npy"));
    EXPECT_TRUE(values.defined()) << file;
    return values;
  }
};

TEST_P(Generation, GreedyTokensAreThoseOfTransformers) {
  auto model = model_of(GetParam());
  const Tensor tokens = generate(*model, golden("prompt"), {}, {.max_new_tokens = 64});
  EXPECT_TRUE(tokens.equal(golden("generated"))) << tokens << golden("generated");
}

TEST_P(Generation, LeftPaddedBatchEqualsTransformersAndItsSingles) {
  auto model = model_of(GetParam());
  const GenerateOptions options{.max_new_tokens = 64};
  const Tensor prompt = golden("batch_prompt"), mask = golden("batch_mask");
  const Tensor tokens = generate(*model, prompt, mask, options);
  EXPECT_TRUE(tokens.equal(golden("batch_generated")));
  for (int64_t row = 0; row < prompt.size(0); ++row) {
    const Tensor single = prompt[row].masked_select(mask[row].to(at::kBool)).unsqueeze(0);
    EXPECT_TRUE(generate(*model, single, {}, options)[0].equal(tokens[row])) << row;
  }
}

// Pieces of 5, 1, 1, 3 and then single tokens: prefill and decoding are one code path.
TEST_P(Generation, CachedLogitsAreThoseOfTheFullForwardPassAtEveryPosition) {
  auto model = model_of(GetParam());
  const Tensor mask = at::cat({golden("batch_mask").to(at::kBool), at::ones({2, 64}, at::kBool)}, 1);
  const Tensor tokens = at::cat({golden("batch_prompt"), golden("batch_generated")}, 1);
  const int64_t S = tokens.size(1);
  const Tensor positions = (mask.to(at::kLong).cumsum(1) - 1).clamp_min(0);
  const Tensor full = full_logits(*model, tokens, mask, positions);
  LatentCache cache(*model, 2, S);
  std::vector<Tensor> pieces;
  for (int64_t size : {5, 1, 1, 3})
    pieces.push_back(decode_logits(*model, cache, tokens.narrow(1, cache.length(), size),
                                   mask.narrow(1, cache.length(), size)));
  while (cache.length() < S)
    pieces.push_back(decode_logits(*model, cache, tokens.narrow(1, cache.length(), 1)));
  const Tensor cached = at::cat(pieces, 1);
  ASSERT_EQ(cached.sizes(), full.sizes());
  EXPECT_EQ(cached.scalar_type(), at::kFloat);
  for (int64_t row = 0; row < 2; ++row)
    for (int64_t i = 0; i < S; ++i)
      if (mask[row][i].item<bool>()) {
        EXPECT_LE(test::relative_error(cached[row][i], full[row][i]), 1e-5) << row << ", " << i;
      }
  EXPECT_EQ(cache.next_position_B()[1].item<int64_t>(), S - 4);
  EXPECT_THROW(decode_logits(*model, cache, tokens.narrow(1, 0, 1)), std::length_error);
}

INSTANTIATE_TEST_SUITE_P(Transformers, Generation, testing::Values("yarn", "moonlight", "tied"),
                         [](const auto& info) { return info.param; });

TEST(Generate, CacheHoldsTheLatentsAndNothingElse) {
  for (const auto& [dtype, size] :
       {std::pair(at::kFloat, 4), std::pair(at::kBFloat16, 2), std::pair(at::kDouble, 8)}) {
    auto model = model_of("yarn", dtype);
    const ModelConfig& c = model->config();
    EXPECT_EQ(LatentCache(*model, 3, 17).bytes(),
              c.num_hidden_layers * 17 * (c.kv_lora_rank + c.qk_rope_head_dim) * size * 3);
  }
}

// Longer than the pieces in which a prompt is read; bf16 copies its weights while it runs.
TEST(Generate, LongPromptEqualsTheFullForwardPass) {
  for (at::ScalarType dtype : {at::kDouble, at::kBFloat16}) {
    auto model = model_of("yarn", dtype);
    const Tensor prompt = (at::arange(1100).square() % model->config().vocab_size).unsqueeze(0);
    const Tensor logits = full_logits(*model, prompt)[0][1099].to(at::kDouble);
    const int64_t token = generate(*model, prompt, {}, {.max_new_tokens = 1})[0][0].item<int64_t>();
    EXPECT_LE((logits.max() - logits[token]).item<double>(), dtype == at::kDouble ? 0 : 0.05);
  }
}

// In bf16, where an unsharded unit holds a copy of its weights.
TEST(Generate, LeavesTheModelAsItWas) {
  auto model = model_of("yarn", at::kBFloat16);
  for (RouterState& state : model->router_states()) state.count_E.fill_(7);
  generate(*model, at::ones({1, 4}, at::kLong), {}, {.max_new_tokens = 4});
  for (RouterState& state : model->router_states()) EXPECT_TRUE(state.count_E.eq(7).all().item<bool>());
  for (const auto& unit : model->flat_units())
    for (const FlatUnit::Slot& slot : unit->slots())
      EXPECT_FALSE(slot.param.data.defined()) << slot.spec->name;
}

class Sampling : public testing::Test {
 protected:
  Tensor sample(GenerateOptions options, int64_t rows = 1) {
    options.max_new_tokens = options.max_new_tokens == 256 ? 24 : options.max_new_tokens;
    return generate(*model, prompt.expand({rows, -1}), {}, options);
  }
  // The set that a first token may come from, by sampling it often.
  std::set<int64_t> first_tokens(GenerateOptions options) {
    options.max_new_tokens = 1;
    std::set<int64_t> ids;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      options.seed = seed;
      const Tensor tokens = sample(options, 50);
      for (int64_t row = 0; row < 50; ++row) ids.insert(tokens[row][0].item<int64_t>());
    }
    return ids;
  }
  std::unique_ptr<Model> model = model_of("yarn");
  Tensor prompt = test::read_npy(folder_of("yarn") / "prompt.npy");
  // Of the first new token, likeliest first.
  Tensor order = std::get<1>(full_logits(*model, prompt)[0][-1].sort(-1, true));
  Tensor probability = full_logits(*model, prompt)[0][-1].to(at::kDouble).softmax(-1);
};

TEST_F(Sampling, DependsOnSeedRowAndPositionAlone) {
  const GenerateOptions options{.temperature = 2, .seed = 5};
  GenerateOptions other = options;
  other.seed = 6;
  const Tensor tokens = sample(options);
  at::manual_seed(1);
  EXPECT_TRUE(sample(options).equal(tokens));
  EXPECT_FALSE(sample(other).equal(tokens));
  const Tensor rows = sample(options, 2);
  EXPECT_TRUE(rows[0].equal(tokens[0]));
  EXPECT_FALSE(rows[1].equal(tokens[0]));
  // Left padding moves nothing.
  const Tensor padded = at::constant_pad_nd(prompt, {3, 0}),
               mask = at::constant_pad_nd(at::ones_like(prompt), {3, 0});
  GenerateOptions short_options = options;
  short_options.max_new_tokens = 24;
  EXPECT_TRUE(generate(*model, padded, mask, short_options).equal(tokens));
}

TEST_F(Sampling, TopKKeepsTheKLikeliest) {
  EXPECT_TRUE(sample({.temperature = 3, .top_k = 1}).equal(sample({.temperature = 0})));
  std::set<int64_t> likeliest;
  for (int64_t i = 0; i < 3; ++i) likeliest.insert(order[i].item<int64_t>());
  EXPECT_EQ(first_tokens({.temperature = 1, .top_k = 3}), likeliest);
  EXPECT_GT(first_tokens({.temperature = 1}).size(), 10u);
}

TEST_F(Sampling, TopPKeepsTheSmallestSetThatReachesIt) {
  std::set<int64_t> likeliest;
  double sum = 0;
  for (int64_t i = 0; sum < 0.3; ++i) {
    likeliest.insert(order[i].item<int64_t>());
    sum += probability[order[i]].item<double>();
  }
  EXPECT_EQ(first_tokens({.temperature = 1, .top_p = 0.3}), likeliest);
  EXPECT_TRUE(sample({.temperature = 3, .top_p = 1e-9}).equal(sample({.temperature = 0})));
}

TEST_F(Sampling, FrequenciesAreTheSoftmaxOfTheLogitsOverTheTemperature) {
  const double temperature = 0.7;
  const Tensor expected = (probability.log() / temperature).softmax(-1);
  Tensor counts = at::zeros_like(expected);
  const int64_t rows = 500;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const Tensor tokens = sample({.max_new_tokens = 1, .temperature = temperature, .seed = seed}, rows);
    counts += at::bincount(tokens.flatten(), {}, counts.size(0));
  }
  // Five standard deviations of a binomial count of 4000 draws.
  const Tensor bound = (expected * (1 - expected) / (8.0 * rows)).sqrt() * 5 + 1e-3;
  EXPECT_TRUE((counts / (8.0 * rows) - expected).abs().le(bound).all().item<bool>());
}

TEST_F(Sampling, EosEndsARow) {
  auto batch = [&](std::optional<int64_t> eos, std::vector<std::vector<int64_t>>* seen) {
    seen->assign(2, {});
    GenerateOptions options{.max_new_tokens = 64, .eos = eos};
    options.on_token = [seen](int64_t row, int64_t token) { (*seen)[row].push_back(token); };
    return generate(*model, test::read_npy(folder_of("yarn") / "batch_prompt.npy"),
                    test::read_npy(folder_of("yarn") / "batch_mask.npy"), options);
  };
  std::vector<std::vector<int64_t>> all, seen;
  const Tensor free = batch({}, &all);
  ASSERT_EQ(all[0].size(), 64u);
  const int64_t eos = all[0][20];
  std::vector<size_t> lengths;
  for (const auto& row : all) {
    const auto found = std::find(row.begin(), row.end(), eos);
    lengths.push_back(static_cast<size_t>(std::min(found + 1, row.end()) - row.begin()));
  }
  ASSERT_NE(lengths[0], lengths[1]);
  const Tensor stopped = batch(eos, &seen);
  EXPECT_EQ(stopped.size(1), static_cast<int64_t>(std::max(lengths[0], lengths[1])));
  for (int64_t row = 0; row < 2; ++row) {
    const auto length = static_cast<int64_t>(lengths[row]);
    EXPECT_EQ(seen[row].size(), lengths[row]);
    EXPECT_TRUE(stopped[row].narrow(0, 0, length).equal(free[row].narrow(0, 0, length)));
    EXPECT_TRUE(stopped[row].narrow(0, length, stopped.size(1) - length).eq(eos).all().item<bool>());
  }
}

TEST_F(Sampling, RefusesWhatItCannotDo) {
  EXPECT_THROW(sample({.temperature = -1}), UsageError);
  EXPECT_THROW(sample({.temperature = NAN}), UsageError);
  EXPECT_THROW(sample({.top_k = -1}), UsageError);
  EXPECT_THROW(sample({.top_p = 0}), UsageError);
  EXPECT_THROW(sample({.max_new_tokens = -1}), UsageError);
  EXPECT_THROW(generate(*model, at::empty({1, 0}, at::kLong), {}, {}), UsageError);
  Tensor right_padded = at::ones_like(prompt);
  right_padded[0][-1] = 0;
  EXPECT_THROW(generate(*model, prompt, right_padded, {}), UsageError);
  EXPECT_EQ(sample({.max_new_tokens = 0}).size(1), 0);
  model->flat_units()[0]->master().fill_(NAN);
  EXPECT_THROW(sample({}), RunError);
}

}  // namespace
}  // namespace dsv3
