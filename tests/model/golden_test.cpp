// Against transformers: logits, losses, routing, counts and every gradient of the committed goldens
// (tools/golden/make.py), in fp64, fp32 and bf16.
#include <gtest/gtest.h>

#include "dsv3/base/json.h"
#include "dsv3/train/trace.h"
#include "support/tensors.h"

namespace dsv3 {
namespace {

using at::Tensor;
namespace fs = std::filesystem;

const fs::path kGoldens = fs::path(DSV3_SOURCE_DIR) / "tests/golden";

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kGoldens))
    if (fs::exists(entry.path() / "expected.safetensors")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

struct Golden {
  explicit Golden(const std::string& name) : folder(kGoldens / name), config(ModelConfig::load(folder)) {
    meta = read_json(folder / "meta.json");
    std::vector<std::string> flags;
    for (const auto& flag : meta.at("flags")) flags.push_back(flag.get<std::string>().substr(2));
    run = RunConfig::from_flags(flags, config);
    expected = test::read_safetensors(folder / "expected.safetensors");
    micro.tokens_BS = test::read_npy(folder / "tokens.npy");
    if (Tensor mask = test::read_npy(folder / "mask.npy"); mask.defined())
      micro.padding_BS = mask.to(at::kBool);
    micro.documents_BS = test::read_npy(folder / "documents.npy");
    Tensor labels = test::read_npy(folder / "labels.npy");
    micro.targets_BS =
        targets_of_labels(labels.defined() ? labels : micro.tokens_BS, micro.padding_BS, micro.documents_BS);
  }

  std::map<std::string, Tensor> trace_in(const std::string& dtype, bool replay = false) {
    run.train.dtype = dtype;
    run.ops.backend = test::backend() == Backend::aten ? "aten" : "fast";
    Model model(config, Mesh::create({}), ExecOptions::from(run));
    model.load(folder);
    MicroBatch batch = micro;
    if (replay)
      for (const RouterState& state : model.router_states())
        batch.replay[state.layer] =
            expected.at("router." + std::to_string(state.layer) + ".experts").flatten(0, 1);
    return trace(model, batch, {.mtp_lambda = run.mtp.lambda, .mtp_count_main = run.mtp.count == "main"},
                 true);
  }

  // The two tensors at the positions whose values mean something.
  std::pair<Tensor, Tensor> meaningful(const std::string& name, const Tensor& a, const Tensor& b) const {
    const Tensor positions = alive(name);
    if (b.dim() != 3 || name.starts_with("grad.") || !positions.defined()) return {a, b};
    return {a.masked_select(positions.unsqueeze(-1)), b.masked_select(positions.unsqueeze(-1))};
  }

 private:
  // undefined: all.
  Tensor alive(const std::string& tensor_name) const {
    int64_t depth = 0;
    if (tensor_name.starts_with("mtp.")) depth = std::stoll(tensor_name.substr(4));
    if (tensor_name.starts_with("router."))
      depth = std::max<int64_t>(0, std::stoll(tensor_name.substr(7)) - config.num_hidden_layers + 1);
    if (depth > 0) return expected.at("mtp." + std::to_string(depth) + ".alive").to(at::kBool);
    return micro.padding_BS;
  }

 public:
  fs::path folder;
  ModelConfig config;
  Json meta;
  RunConfig run;
  MicroBatch micro;
  std::map<std::string, Tensor> expected;
};

double global_gradient_norm(const std::map<std::string, Tensor>& tensors) {
  double sum = 0;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with("grad.")) sum += tensor.to(at::kDouble).square().sum().item<double>();
  return std::sqrt(sum);
}

void expect_equal(const Golden& golden, const std::map<std::string, Tensor>& ours, double tolerance) {
  const double floor = 1e-6 * global_gradient_norm(golden.expected);
  for (const auto& [name, theirs] : golden.expected) {
    if (name.ends_with(".alive")) continue;
    ASSERT_TRUE(ours.count(name)) << name << " is missing";
    ASSERT_EQ(ours.at(name).sizes(), theirs.sizes()) << name;
    const auto [a, b] = golden.meaningful(name, ours.at(name), theirs);
    if (b.scalar_type() == at::kLong) {
      EXPECT_TRUE(a.equal(b)) << name;
    } else {
      EXPECT_LE(test::relative_error(a, b, name.starts_with("grad.") ? floor : 0), tolerance) << name;
    }
  }
}

class Goldens : public testing::TestWithParam<std::string> {};

TEST_P(Goldens, Fp64) {
  Golden golden(GetParam());
  expect_equal(golden, golden.trace_in("fp64"), 1e-11);
}

TEST_P(Goldens, Fp32) {
  Golden golden(GetParam());
  expect_equal(golden, golden.trace_in("fp32"), 1e-5);
}

// With the fp32 peer's router choices replayed, at most twice transformers' own bf16 error: the logits, all
// gradients as one vector, and the tensors' errors in quadratic mean. The error of a single small tensor (an
// expert with a handful of tokens) is one draw of rounding noise on either side, so one tensor alone is held
// to four times.
TEST_P(Goldens, Bf16Within2xOfTransformers) {
  Golden golden(GetParam());
  const auto ours = golden.trace_in("bf16", /*replay=*/true);
  const Json& theirs = golden.meta.at("relative_error").at("bf16_replayed");
  const double norm = global_gradient_norm(golden.expected), whole = theirs.at("grads").get<double>();
  double squared_error = 0, our_squares = 0, their_squares = 0;
  for (const auto& [name, expected] : golden.expected) {
    if (name.starts_with("grad.")) {
      const double error = test::relative_error(ours.at(name), expected, 1e-6 * norm);
      const double their_error = theirs.at(name).get<double>();
      EXPECT_LE(error, 4 * std::max(their_error, whole)) << name;
      our_squares += error * error;
      their_squares += their_error * their_error;
      squared_error += (ours.at(name).to(at::kDouble) - expected).square().sum().item<double>();
    } else if (name == "logits") {
      const auto [a, b] = golden.meaningful(name, ours.at(name), expected);
      EXPECT_LE(test::relative_error(a, b), 2 * theirs.at(name).get<double>()) << name;
    }
  }
  EXPECT_LE(std::sqrt(squared_error) / norm, 2 * whole);
  EXPECT_LE(std::sqrt(our_squares), 2 * std::sqrt(their_squares));
}

INSTANTIATE_TEST_SUITE_P(Transformers, Goldens, testing::ValuesIn(golden_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace dsv3
