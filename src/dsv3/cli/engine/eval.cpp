// dsv3 eval: loss of a model on token files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/cli/engine/load_model.h"
#include "dsv3/data/ngram.h"
#include "dsv3/data/prefix_info.h"
#include "dsv3/train/evaluate.h"

namespace dsv3 {
namespace {

// Bytes of text per token, from PREFIX.json; 0 when it does not say.
double bytes_per_token(const std::string& prefix) {
  const PrefixInfo info = read_prefix_info(prefix);
  if (!info.bytes || info.tokens.value_or(0) < 1) return 0;
  return static_cast<double>(*info.bytes) / static_cast<double>(*info.tokens);
}

// baseline: PREFIX or empty. batches: 0 for all.
int evaluate_and_print(LoadedModel& loaded, const std::string& data, const std::string& baseline,
                       int64_t batches, bool json) {
  const EvalResult result = evaluate(*loaded.model, Loader(loaded.run, loaded.model->mesh(), /*valid=*/true),
                                     loaded.run.train.micro_batch, batches);
  const double per_token = bytes_per_token(data);
  const double bits = per_token > 0 ? result.loss / std::log(2.0) / per_token : 0;
  std::vector<std::pair<const char*, double>> baselines;
  if (!baseline.empty()) {
    const IndexedDataset train(baseline), held_out(data);
    baselines = {{"bigram", bigram_loss(train, held_out, loaded.run.model.vocab_size)},
                 {"trigram", trigram_loss(train, held_out, loaded.run.model.vocab_size)}};
  }
  if (json) {
    Json out = {{"loss", result.loss},
                {"perplexity", std::exp(result.loss)},
                {"tokens", result.targets},
                {"sequences", result.sequences},
                {"mtp_loss", result.mtp_loss}};
    if (per_token > 0) out["bits_per_byte"] = bits;
    for (const LayerLoad& load : result.load)
      out["load"].push_back({{"layer", load.layer},
                             {"max_vio", load.max_violation},
                             {"dead_experts", load.dead},
                             {"bias_min", load.bias_min},
                             {"bias_max", load.bias_max}});
    for (const auto& [name, loss] : baselines) out[std::string(name) + "_loss"] = loss;
    fmt::print("{}\n", out.dump());
    return 0;
  }
  fmt::print("loss {:.4f}  perplexity {:.2f}", result.loss, std::exp(result.loss));
  if (per_token > 0) fmt::print("  bits per byte {:.4f}", bits);
  fmt::print("  over {} tokens in {} windows of {}\n", result.targets, result.sequences,
             loaded.run.data.seq_len);
  for (size_t k = 0; k < result.mtp_loss.size(); ++k)
    fmt::print("MTP depth {}: loss {:.4f}\n", k + 1, result.mtp_loss[k]);
  for (const auto& [name, loss] : baselines)
    fmt::print("{} model of {}: loss {:.4f}\n", name, baseline, loss);
  for (const LayerLoad& load : result.load)
    fmt::print("layer {:>3}: busiest expert {:.2f}x the mean, {} dead, bias {:+.4f} to {:+.4f}\n", load.layer,
               1 + load.max_violation, load.dead, load.bias_min, load.bias_max);
  return 0;
}

}  // namespace

int eval_command(std::vector<std::string> args) {
  CLI::App app("Loss, perplexity and bits per byte over disjoint windows; expert load per layer.",
               "dsv3 eval");
  ModelFlags model{.keys = {"model.", "ops.", "mtp.", "balance.", "parallel.", "train.dtype", "train.device",
                            "train.deterministic", "data.mask"}};
  std::string data, baseline;
  int64_t seq_len = 0, micro_batch = 4, batches = 0;
  bool json = false;
  model.add_to(app);
  app.add_option("--data", data, "PREFIX of the token files")->required();
  app.add_option("--seq-len", seq_len, "positions of a window, default 1024 or what the data holds")
      ->check(at_least(1));
  app.add_option("--micro-batch", micro_batch, "windows at a time")
      ->capture_default_str()
      ->check(at_least(1));
  app.add_option("--batches", batches, "stop after so many, 0: all")
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--baseline", baseline, "PREFIX: also the loss of bigram and trigram models counted on it");
  app.add_flag("--json", json, "print JSON");
  std::vector<std::string> flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  if (!std::filesystem::exists(data + ".idx"))
    throw UsageError("--data", printable(data, 400) + ".idx: no such file");

  if (!baseline.empty() && batches > 0)
    throw UsageError("--baseline", "counts on all of the data, --batches evaluates a part of it",
                     "drop one of them");
  if (!baseline.empty() && !std::filesystem::exists(baseline + ".idx"))
    throw UsageError("--baseline", printable(baseline, 400) + ".idx: no such file");

  LoadedModel loaded = load_model(model, flags);
  loaded.run.data.valid = {{data, 1}};
  if (seq_len == 0) seq_len = std::min<int64_t>(1024, IndexedDataset(data).num_tokens() - 1);
  if (seq_len < 1) throw UsageError("--seq-len", std::to_string(seq_len) + ", expected 1 or more");
  loaded.run.data.seq_len = seq_len;
  loaded.run.train.micro_batch = micro_batch;
  return reported([&] { return evaluate_and_print(loaded, data, baseline, batches, json); });
}

}  // namespace dsv3
