// Values that are possible alone and impossible together.
#include <fmt/format.h>

#include "dsv3/base/error.h"
#include "dsv3/config/run_keys.h"
#include "dsv3/config/shares.h"

namespace dsv3 {
namespace {

// Why the run cannot be, or nothing.
struct Check {
  const char* key;
  std::string (*problem)(const RunConfig&);
};

std::string multiple(const char* name, double value, int64_t of) {
  if (static_cast<int64_t>(value) % of == 0 && value == static_cast<double>(static_cast<int64_t>(value)))
    return "";
  return fmt::format("{} = {} is not a multiple of train.micro_batch = {}", name, value, of);
}

std::string inexact_weights(const std::vector<DataSource>& sources) {
  if (!is_blend(sources) || !blend_shares(sources).empty()) return "";
  return fmt::format(
      "the ratio of the weights is not that of whole numbers adding up to at most {}, so no blend is exact "
      "(write up to 6 digits after the point, adding up to 1)",
      kMaxBlendPeriod);
}

const Check kChecks[] = {
    {"data.train", [](const RunConfig& run) { return inexact_weights(run.data.train); }},
    {"data.valid", [](const RunConfig& run) { return inexact_weights(run.data.valid); }},
    {"data.fim_rate",
     [](const RunConfig& run) -> std::string {
       if (run.data.fim_rate == 0 || (run.data.tokenizer != "byte" && !run.data.tokenizer.empty())) return "";
       return run.data.tokenizer.empty()
                  ? "fill-in-the-middle needs data.tokenizer, for the ids of its sentinels"
                  : "the byte tokenizer has no tokens for fill-in-the-middle (leave it at 0, or prepare the "
                    "text with a tokenizer.json that has <｜fim▁begin｜>, <｜fim▁hole｜> and <｜fim▁end｜>)";
     }},
    {"train.micro_batch",
     [](const RunConfig& run) {
       return multiple("train.global_batch", static_cast<double>(run.train.global_batch),
                       run.train.micro_batch);
     }},
    {"schedule.batch",
     [](const RunConfig& run) {
       std::string problem;
       for (const auto& point : run.schedule.batch.points) {
         if (problem.empty()) problem = multiple("value", point.value, run.train.micro_batch);
       }
       return problem;
     }},
    {"parallel.ep",
     [](const RunConfig& run) -> std::string {
       if (run.parallel.shard == 0 || run.parallel.shard % run.parallel.ep == 0) return "";
       return fmt::format("{} does not divide parallel.shard = {}", run.parallel.ep, run.parallel.shard);
     }},
    {"parallel.ep",
     [](const RunConfig& run) -> std::string {
       if (!run.model.has_moe()) return run.parallel.ep == 1 ? "" : "the model has no experts to share";
       if (run.model.n_routed_experts % run.parallel.ep == 0) return "";
       return fmt::format("{} does not divide model.n_routed_experts = {}", run.parallel.ep,
                          run.model.n_routed_experts);
     }},
    {"parallel.max_unsharded",
     [](const RunConfig& run) -> std::string {
       if (run.parallel.max_unsharded == 0 || run.parallel.reshard == "after_forward") return "";
       return fmt::format("a limit needs parallel.reshard = after_forward, it is {}", run.parallel.reshard);
     }},
    {"metrics.tensorboard",
     [](const RunConfig& run) -> std::string {
       return run.metrics.tensorboard ? "is not built yet: metrics.jsonl holds the values" : "";
     }},
    {"ops.grouped",
     [](const RunConfig& run) -> std::string {
       if (run.ops.grouped != "grouped_mm" || run.train.dtype != "fp64") return "";
       return "grouped_mm has no fp64, train.dtype = fp64";
     }},
    {"ops.attention",
     [](const RunConfig& run) -> std::string {
       const int64_t width = run.model.qk_nope_head_dim + run.model.qk_rope_head_dim;
       if (run.ops.attention != "flash" || run.model.v_head_dim == width) return "";
       return fmt::format("flash needs values as wide as keys, {} and {}: flash_padded pads them",
                          run.model.v_head_dim, width);
     }},
    {"ops.grouped",
     [](const RunConfig& run) -> std::string {
       if (run.ops.grouped != "mkl") return "";
       if (run.ops.backend == "aten") return "mkl is no public ATen operator, ops.backend = aten";
       return run.train.device == "cuda" ? "mkl runs on train.device = cpu alone" : "";
     }},
    {"ops.attention",
     [](const RunConfig& run) -> std::string {
       const bool cudnn = run.ops.attention == "cudnn";
       return cudnn && run.train.device == "cpu" ? "cudnn needs train.device = cuda" : "";
     }},
    {"data.seq_len",
     [](const RunConfig& run) -> std::string {
       if (run.data.seq_len > run.model.num_nextn_predict_layers) return "";
       return fmt::format("{} positions leave no target at MTP depth {}", run.data.seq_len,
                          run.model.num_nextn_predict_layers);
     }},
};

std::string place(const std::map<std::string, std::string>& where, const std::string& key) {
  const auto found = where.find(key);
  return found == where.end() ? key : found->second;
}

}  // namespace

void check_run(const RunConfig& run, const std::map<std::string, std::string>& where) {
  for (const Check& check : kChecks) {
    if (const std::string problem = check.problem(run); !problem.empty()) {
      throw UsageError(place(where, check.key), problem);
    }
  }
}

void RunConfig::check_paths() const {
  for (const RunKey& key : run_keys()) {
    if (key.path != PathKind::named && key.path != PathKind::prefix) continue;
    for (const std::string& path : path_values(key, *this)) {
      const std::string file = key.path == PathKind::prefix ? path + ".idx" : path;
      std::error_code error;
      if (std::filesystem::exists(file, error)) continue;
      const std::string& from = origin.at(key.name);
      throw UsageError(from == "flag" ? "--" + std::string(key.name) : from + ": " + key.name,
                       printable(file, 400) + ": no such file or folder");
    }
  }
}

}  // namespace dsv3
