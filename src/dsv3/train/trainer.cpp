#include "dsv3/train/trainer.h"

#include <chrono>
#include <cmath>

#include "dsv3/base/error.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/optim/schedule.h"

namespace dsv3 {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

void set_determinism(bool deterministic) {
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  // Filling every fresh tensor would cost a pass over memory; no operator here reads what it has not written.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

void CommMeter::begin() {
  before_.clear();
  for (const Group* group : mesh_.groups()) before_.push_back(group->counters());
}

void CommMeter::read(StepMetrics& metrics) {
  const std::vector<const Group*> groups = mesh_.groups();
  std::vector<int64_t> calls, bytes;
  metrics.comm_s = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    calls.push_back(groups[i]->counters().calls - before_[i].calls);
    bytes.push_back(groups[i]->counters().bytes - before_[i].bytes);
    metrics.comm_s += groups[i]->counters().wait_s - before_[i].wait_s;
  }
  const std::vector<int64_t> total = mesh_.sum(bytes, "counters");
  metrics.comm.clear();
  for (size_t i = 0; i < groups.size(); ++i)
    if (groups[i]->size() > 1)
      metrics.comm.push_back({.group = groups[i]->name(), .calls = calls[i], .bytes = total[i]});
}

bool Trainer::done_at(const TrainState& state) const {
  return run_.train.steps > 0 ? state.step >= run_.train.steps : state.tokens >= run_.train.tokens;
}

int64_t Trainer::sequences_after(const TrainState& state) const {
  const auto constant = static_cast<double>(run_.train.global_batch);
  return std::llround(schedule_value(run_.schedule.batch, constant, state.tokens, state.step));
}

int64_t Trainer::total_steps() const {
  if (run_.train.steps > 0) return run_.train.steps;
  if (!run_.schedule.batch.points.empty()) return 0;
  const int64_t step_tokens = run_.train.global_batch * run_.data.seq_len;
  return (run_.train.tokens + step_tokens - 1) / step_tokens;
}

void Trainer::check_progress() const {
  if (run_.train.max_bad_steps > 0 && state_.bad_in_a_row >= run_.train.max_bad_steps)
    throw Error(ExitCode::bad_steps, "step " + std::to_string(state_.step),
                std::to_string(state_.bad_in_a_row) + " steps in a row had a non-finite loss or gradient",
                "lower optim.lr, or raise train.max_bad_steps");
}

std::vector<std::string> Trainer::resume(const TrainState& state) {
  ahead_.drop();
  state_ = state;
  return loader_.go_on(state.data, state.cursor);
}

StepMetrics Trainer::step() {
  const auto start = Clock::now();
  auto now = [&](const Schedule& schedule, double constant) {
    return schedule_value(schedule, constant, state_.tokens, state_.step);
  };
  const int64_t sequences = sequences_after(state_);
  const LossOptions loss_options{.mtp_lambda = now(run_.schedule.lambda, run_.mtp.lambda),
                                 .mtp_count_main = run_.mtp.count == "main"};
  StepMetrics metrics;
  metrics.lr = learning_rate(run_, state_.tokens, state_.step + 1);
  const double gamma = now(run_.schedule.gamma, run_.balance.gamma);

  comm_.begin();
  Batch batch;
  // A token that one rank alone finds to be wrong is everybody's error.
  on_all_ranks(model_.mesh(), [&] {
    batch = ahead_.take(state_.cursor, sequences);
    metrics.data_s = seconds_since(start);
  });

  Step step = model_.begin_step(batch);
  TrainState after = state_;
  after.step += 1;
  after.tokens += step.counts().tokens;
  after.cursor += sequences;
  after.data = loader_.position(after.cursor);
  if (!done_at(after)) ahead_.begin(after.cursor, sequences_after(after));

  double lm = 0, mtp = 0, weighted_mtp = 0, balance = 0;
  for (const MicroBatch& micro : batch.micro) {
    Output output = step.forward(micro);
    const Losses losses = standard_loss(output, step.counts(), loss_options);
    losses.total.backward();
    lm += losses.lm.item<double>();
    const double depths = static_cast<double>(losses.mtp.size());
    for (const at::Tensor& loss : losses.mtp) {
      mtp += loss.item<double>() / depths;
      weighted_mtp += loss.item<double>() * (loss_options.mtp_lambda / depths);
    }
    balance += output.balance_loss.item<double>();
    step.backward(std::move(output));
  }
  const std::vector<double> sums = model_.mesh().sum(std::vector{lm, mtp, weighted_mtp, balance}, "losses");
  lm = sums[0], mtp = sums[1], weighted_mtp = sums[2], balance = sums[3];
  const double loss = lm + weighted_mtp + balance;
  const StepInfo info = optimizer_.step(step.finish(), metrics.lr, gamma, std::isfinite(loss));

  after.skipped += info.skipped ? 1 : 0;
  after.bad_in_a_row = info.skipped ? after.bad_in_a_row + 1 : 0;
  state_ = after;

  metrics.step = state_.step;
  metrics.tokens = state_.tokens;
  metrics.loss = loss;
  metrics.lm_loss = lm;
  metrics.mtp_loss = mtp;
  metrics.balance_loss = balance;
  metrics.grad_norm = info.grad_norm;
  metrics.step_tokens = step.counts().tokens;
  metrics.skipped = state_.skipped;
  metrics.mem_bytes = memory_bytes("VmHWM:");
  for (RouterState& state : model_.router_states())
    metrics.load.push_back(load_of(state.layer, state.count_E, state.bias_E));
  comm_.read(metrics);
  metrics.step_s = seconds_since(start);
  return metrics;
}

}  // namespace dsv3
