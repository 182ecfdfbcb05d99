// dsv3 trace: everything that one batch computes, for comparisons.
#include "dsv3/train/trace.h"

#include <CLI/CLI.hpp>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/cli/engine/load_model.h"
#include "dsv3/formats/npy.h"
#include "dsv3/formats/safetensors.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

// A [B, S] array of integers; undefined without a path. like: the shape that it must have.
Tensor read_array(const std::string& flag, const std::string& path, const Tensor& like) {
  if (path.empty()) return {};
  if (!std::filesystem::exists(path)) throw UsageError(flag, printable(path, 400) + ": no such file");
  const NpyArray array = read_npy_int(path);
  if (array.shape.size() != 2)
    throw InputError(path, "shape", "has " + std::to_string(array.shape.size()) + " dims, expected [B, S]");
  Tensor tensor = at::tensor(array.values, at::kLong).view(array.shape);
  if (tensor.numel() == 0) throw InputError(path, "shape", "is empty");
  if (like.defined() && tensor.sizes() != like.sizes())
    throw InputError(path, "shape", "differs from that of --tokens");
  return tensor;
}

void check_range(const std::string& path, const Tensor& values, int64_t low, int64_t high,
                 bool ignored_allowed) {
  Tensor bad = values.lt(low).logical_or(values.ge(high));
  if (ignored_allowed) bad = bad.logical_and(values.ne(kIgnoredTarget));
  if (!bad.any().item<bool>()) return;
  const int64_t at = bad.reshape({-1}).to(at::kByte).argmax().item<int64_t>();
  throw InputError(path, "element " + std::to_string(at),
                   "is " + std::to_string(values.reshape({-1})[at].item<int64_t>()) + ", expected " +
                       std::to_string(low) + " to " + std::to_string(high - 1));
}

std::map<int64_t, Tensor> read_routing(const std::string& path, Model& model, const Tensor& tokens_BS) {
  std::map<int64_t, Tensor> replay;
  if (path.empty()) return replay;
  if (!std::filesystem::exists(path)) throw UsageError("--routing", printable(path, 400) + ": no such file");
  const SafetensorsFile file(path);
  const ModelConfig& config = model.config();
  for (const RouterState& state : model.router_states()) {
    const std::string name = "router." + std::to_string(state.layer) + ".experts";
    const TensorInfo* info = file.find(name);
    if (!info) throw InputError(path, name, "is missing");
    const std::vector<int64_t> shape{tokens_BS.size(0), tokens_BS.size(1), config.num_experts_per_tok};
    if (info->shape != shape || info->dtype != DType::i64)
      throw InputError(path, name, "has another shape or dtype than int64 [B, S, num_experts_per_tok]");
    Tensor ids = at::empty(shape, at::kLong);
    file.read(*info, {static_cast<std::byte*>(ids.data_ptr()), ids.nbytes()});
    check_range(path, ids, 0, config.n_routed_experts, false);
    replay[state.layer] = ids.flatten(0, 1);
  }
  return replay;
}

void write_tensors(const std::string& path, const std::map<std::string, Tensor>& tensors) {
  auto dtype_of = [](const Tensor& t) {
    switch (t.scalar_type()) {
      case at::kDouble:
        return DType::f64;
      case at::kFloat:
        return DType::f32;
      case at::kBFloat16:
        return DType::bf16;
      default:
        return DType::i64;
    }
  };
  // Larger elements first: every tensor of the file is aligned to its dtype.
  std::vector<std::pair<std::string, Tensor>> ordered(tensors.begin(), tensors.end());
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto& [name, tensor] : ordered)
    entries.push_back({name, dtype_of(tensor), tensor.sizes().vec()});
  SafetensorsWriter writer(path, entries);
  for (const auto& [name, tensor] : ordered) {
    const Tensor data = tensor.contiguous().cpu();
    writer.write({static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()});
  }
  writer.finish();
}

}  // namespace

int trace_command(std::vector<std::string> args) {
  CLI::App app("Logits, losses, routing and gradients of one batch, as a safetensors file.", "dsv3 trace");
  ModelFlags model{.keys = {"model.", "ops.", "mtp.", "balance.", "parallel.recompute", "train.device",
                            "train.deterministic"}};
  std::string tokens, mask, labels, positions, documents, routing, dtype = "fp32", out;
  bool grads = false;
  model.add_to(app);
  app.add_option("--tokens", tokens, "int64 [B, S] .npy")->required();
  app.add_option("--mask", mask, "[B, S] .npy, 0 = padding (left or right)");
  app.add_option("--labels", labels,
                 "[B, S] .npy aligned with the tokens, -100 = ignored; default: the tokens");
  app.add_option("--positions", positions, "[B, S] .npy, default 0, 1, 2, ...");
  app.add_option("--documents", documents, "[B, S] .npy, attention stays inside a document");
  app.add_option("--routing", routing, "router choices of another trace, replayed");
  app.add_option("--dtype", dtype, "fp32, fp64 or bf16")->capture_default_str();
  app.add_flag("--grads", grads, "gradients too");
  app.add_option("--out", out, "safetensors file")->required();
  std::vector<std::string> flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  require_output("--out", out,
                 {model.folder, model.config, tokens, mask, labels, positions, documents, routing});

  LoadedModel loaded = load_model(model, flags, grads, dtype);
  if (const int ranks = loaded.model->mesh().world_size(); ranks > 1)
    throw UsageError("dsv3 trace", "runs in one process, the world has " + std::to_string(ranks) + " ranks",
                     "start it without a launcher");
  const ModelConfig& config = loaded.model->config();
  MicroBatch micro;
  micro.tokens_BS = read_array("--tokens", tokens, {});
  check_range(tokens, micro.tokens_BS, 0, config.vocab_size, false);
  if (Tensor padding = read_array("--mask", mask, micro.tokens_BS); padding.defined()) {
    check_range(mask, padding, 0, 2, false);
    // Padding on one side: a row's value changes once at most.
    const Tensor changes = padding.diff(1, 1).ne(0).sum(1);
    if (changes.gt(1).any().item<bool>())
      throw InputError(mask, "row " + std::to_string(changes.gt(1).to(at::kByte).argmax().item<int64_t>()),
                       "has padding among its tokens, expected it on the left or on the right");
    micro.padding_BS = padding.ne(0);
  }
  micro.documents_BS = read_array("--documents", documents, micro.tokens_BS);
  micro.positions_BS = read_array("--positions", positions, micro.tokens_BS);
  if (micro.positions_BS.defined()) check_range(positions, micro.positions_BS, 0, int64_t{1} << 31, false);
  Tensor label_ids = read_array("--labels", labels, micro.tokens_BS);
  if (label_ids.defined()) check_range(labels, label_ids, 0, config.vocab_size, true);
  micro.targets_BS = targets_of_labels(label_ids.defined() ? label_ids : micro.tokens_BS, micro.padding_BS,
                                       micro.documents_BS);
  micro.replay = read_routing(routing, *loaded.model, micro.tokens_BS);

  write_tensors(
      out,
      trace(*loaded.model, micro,
            {.mtp_lambda = loaded.run.mtp.lambda, .mtp_count_main = loaded.run.mtp.count == "main"}, grads));
  return 0;
}

}  // namespace dsv3
