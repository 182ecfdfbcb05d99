#pragma once
// A run: TOML file plus --section.key=value flags, every value with its origin.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/config/model_config.h"

namespace dsv3 {

// A piecewise schedule: from `at` on (tokens seen, or optimizer steps when by_steps) the value moves from the
// previous point's value to this one's by `shape`: step (jump at `at`), linear or cosine (reached at `at`).
struct SchedulePoint {
  double at = 0;
  double value = 0;
  std::string shape = "step";
  bool operator==(const SchedulePoint&) const = default;
};
struct Schedule {
  bool by_steps = false;
  std::vector<SchedulePoint>
      points;  // ascending `at`; empty: the constant of the section that owns the value
};

// Sources without weights stand one behind the other, each sample once an epoch. Once any has one they are a
// blend: weight / (sum of the weights) is a source's share of the samples, whatever its size, and each source
// has epochs of its own.
struct DataSource {
  std::string path;
  std::optional<double> weight = {};  // finite and > 0; in a blend 1 where none is given
};

struct DataConfig {
  std::vector<DataSource> train, valid;
  int64_t seq_len = 1024;
  uint64_t seed = 0;
  bool shuffle = true;
  std::string tokenizer;
  std::string mask = "none";     // none | document
  double fim_rate = 0;           // share of the training documents reordered for fill-in-the-middle
  std::string fim_mode = "psm";  // prefix, suffix, middle: the only one
};

struct ParallelConfig {
  int64_t replicate = 1, shard = 0, ep = 1;  // shard 0: world / replicate
  std::string reshard = "after_backward";
  int64_t prefetch_forward = 1;
  std::string prefetch_backward = "pre";
  int64_t max_unsharded = 0;           // 0: no limit
  std::string accumulate = "sharded";  // sharded | unsharded
  std::string recompute = "none";      // none | block | every:N | attention | moe
  int64_t timeout_s = 600;
};

struct OpsConfig {
  std::string backend = "auto";    // auto | aten | fast
  std::string grouped = "auto";    // auto | loop | mkl | grouped_mm
  std::string attention = "auto";  // auto | flash | flash_padded | cudnn | math
};

struct OptimConfig {
  double lr = 3e-4;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, clip = 1.0;  // clip 0: none
  std::string moments = "fp32";                                                  // fp32 | bf16
  std::vector<std::string> freeze;                                               // globs over parameter names
};

struct ScheduleConfig {
  Schedule lr, gamma, lambda, batch;
  int64_t warmup_steps = 0;  // lr × min(1, step / warmup_steps), step from 1
};

struct MtpConfig {
  double lambda = 0.3;
  std::string hidden = "post_norm";  // post_norm | pre_norm
  std::string count = "own";         // own | main
  bool init_missing = false;
};

struct BalanceConfig {
  std::string loss = "sequence";  // none | batch | sequence
  double alpha = 1e-4;
  double gamma = 1e-3;
  std::string indicator = "unbiased";  // unbiased | selected
};

struct TrainConfig {
  int64_t steps = 0, tokens = 0;              // one of the two is not 0
  int64_t global_batch = 8, micro_batch = 8;  // sequences; micro_batch unset: gcd(global_batch, 8)
  std::string dtype = "fp32";                 // bf16 | fp32 | fp64
  std::string device = "cpu";                 // cpu | cuda
  uint64_t seed = 0;
  bool deterministic = true;  // default false on cuda
  int64_t max_bad_steps = 8;
  std::string out;  // default runs/<file stem>
};

struct CheckpointConfig {
  int64_t every = 0, keep_last = 2, keep_every = 0;
  bool async = false;
  std::string resume;
  int64_t max_failures = 3;
};
struct EvalConfig {
  int64_t every = 0, batches = 0;  // every 0: never; batches 0: the whole valid split
};
struct MetricsConfig {
  int64_t every = 1, load_every = 0;
  bool tensorboard = false;
};

struct RunConfig {
  ModelConfig model;
  std::string model_init;  // model.init
  DataConfig data;
  ParallelConfig parallel;
  OpsConfig ops;
  OptimConfig optim;
  ScheduleConfig schedule;
  MtpConfig mtp;
  BalanceConfig balance;
  TrainConfig train;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  MetricsConfig metrics;
  // "optim.lr" -> "default" | "run.toml:7" | "flag" | "preset tiny"; "model": of the fields that [model] and
  // flags don't write themselves.
  std::map<std::string, std::string> origin;

  // flags: "section.key=value" without the dashes. Paths in the file are relative to the file, in flags to
  // the working directory. Unknown or misspelt key, wrong type, impossible value: UsageError with file, line,
  // key, nearest key.
  static RunConfig load(const std::filesystem::path& file, const std::vector<std::string>& flags = {});
  // Without a file: defaults and flags alone; required keys are not asked for. model, when given, is the base
  // that model.* flags override (eval, trace and generate, whose model comes from --model).
  static RunConfig from_flags(const std::vector<std::string>& flags,
                              const std::optional<ModelConfig>& model = {});

  // The resolved run as TOML, paths absolute, the model written out; loads back to an equal run. Keys of
  // config.json that are carried and not read stay behind.
  std::string to_toml() const;

  // Every key in the order of the sections, for people and --json.
  struct Value {
    std::string key;
    Json value;
    std::string origin;
  };
  std::vector<Value> resolved() const;

  // UsageError when a path that the run names does not exist: model.init, data.*, checkpoint.resume.
  void check_paths() const;
};

// One line a key: "--optim.lr NUMBER", its meaning and default.
std::string run_keys_help();

// The candidate with the smallest edit distance to word; empty without candidates.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace dsv3
