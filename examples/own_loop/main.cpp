// A training loop of one's own, built against an installed dsv3 alone.
//
//   own_loop RUN.toml standard   the loss of `dsv3 train`: its metrics are equal bit for bit
//   own_loop RUN.toml focal      a loss on per-token log-probabilities that dsv3 knows nothing of
//
// With a third argument, a file to meet at, it is a rank (RANK, WORLD_SIZE) over process groups of its own.
// Prints a metrics.jsonl line a step.
#include <ATen/ATen.h>
#include <dsv3/dsv3.h>

#include <cmath>
#include <cstdio>
#include <string>

#include "own_groups.h"

namespace {

// Focal loss (arXiv 1708.02002): tokens that the model already knows weigh less.
at::Tensor focal_loss(const dsv3::Output& out, int64_t valid_tokens) {
  const at::Tensor p = out.logp_BS.exp();
  return ((1 - p).square() * out.logp_BS).sum().neg() / static_cast<double>(valid_tokens);
}

struct StepLosses {
  double lm = 0, mtp = 0, weighted_mtp = 0, balance = 0;
};

// Forward, the loss, backward: for each micro-batch of the step.
StepLosses run_step(dsv3::Step& step, const dsv3::Batch& batch, const dsv3::LossOptions& options,
                    bool focal) {
  StepLosses sum;
  for (const dsv3::MicroBatch& micro : batch.micro) {
    dsv3::Output out = step.forward(micro);
    sum.balance += out.balance_loss.item<double>();
    if (focal) {
      const at::Tensor loss = focal_loss(out, step.valid_tokens());
      sum.lm += loss.item<double>();
      loss.backward();
    } else {
      const dsv3::Losses losses = dsv3::standard_loss(out, step.counts(), options);
      sum.lm += losses.lm.item<double>();
      const double depths = static_cast<double>(losses.mtp.size());
      for (const at::Tensor& loss : losses.mtp) {
        sum.mtp += loss.item<double>() / depths;
        sum.weighted_mtp += loss.item<double>() * (options.mtp_lambda / depths);
      }
      losses.total.backward();
    }
    step.backward(std::move(out));
  }
  return sum;
}

StepLosses over_ranks(const dsv3::Mesh& mesh, const StepLosses& mine) {
  const auto sum = mesh.sum(std::vector{mine.lm, mine.mtp, mine.weighted_mtp, mine.balance}, "losses");
  return {sum[0], sum[1], sum[2], sum[3]};
}

int train(const std::string& file, bool focal, const char* store) {
  const auto run = dsv3::RunConfig::load(file);
  dsv3::set_determinism(run.train.deterministic);
  const auto mesh = store ? own_groups(store) : dsv3::Mesh::create(run.parallel);
  dsv3::Model model(run.model, mesh, dsv3::ExecOptions::from(run));
  model.initialise(run.train.seed);
  if (!run.model_init.empty()) model.load(run.model_init);
  dsv3::Optimizer optimizer(model, run.optim);
  const dsv3::Loader loader(run, mesh);

  int64_t tokens = 0, cursor = 0, skipped = 0;
  for (int64_t number = 1; number <= run.train.steps; ++number) {
    auto now = [&](const dsv3::Schedule& schedule, double constant) {
      return dsv3::schedule_value(schedule, constant, tokens, number - 1);
    };
    dsv3::StepMetrics metrics;
    metrics.lr = dsv3::learning_rate(run, tokens, number);
    const double gamma = now(run.schedule.gamma, run.balance.gamma);
    const dsv3::LossOptions options{.mtp_lambda = now(run.schedule.lambda, run.mtp.lambda),
                                    .mtp_count_main = run.mtp.count == "main"};

    const dsv3::Batch batch = loader.at(cursor, run.train.global_batch);
    dsv3::Step step = model.begin_step(batch);
    const StepLosses sum = over_ranks(mesh, run_step(step, batch, options, focal));
    metrics.loss = sum.lm + sum.weighted_mtp + sum.balance;
    const auto info = optimizer.step(step.finish(), metrics.lr, gamma, std::isfinite(metrics.loss));

    cursor += run.train.global_batch;
    tokens += step.counts().tokens;
    skipped += info.skipped ? 1 : 0;
    metrics.step = number;
    metrics.tokens = tokens;
    metrics.lm_loss = sum.lm;
    metrics.mtp_loss = sum.mtp;
    metrics.balance_loss = sum.balance;
    metrics.grad_norm = info.grad_norm;
    metrics.step_tokens = step.counts().tokens;
    metrics.skipped = skipped;
    for (dsv3::RouterState& state : model.router_states())
      metrics.load.push_back(dsv3::load_of(state.layer, state.count_E, state.bias_E));
    metrics.step_s = 1;
    if (mesh.rank() == 0) std::puts(dsv3::json_line(metrics).c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: own_loop RUN.toml standard|focal [STORE]\n", stderr);
    return 2;
  }
  try {
    return train(argv[1], std::string(argv[2]) == "focal", argc > 3 ? argv[3] : nullptr);
  } catch (const dsv3::Error& error) {
    std::fprintf(stderr, "own_loop: error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
