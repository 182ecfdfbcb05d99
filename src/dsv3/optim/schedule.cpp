#include "dsv3/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dsv3 {

double schedule_value(const Schedule& schedule, double constant, int64_t tokens, int64_t steps) {
  const double now = static_cast<double>(schedule.by_steps ? steps : tokens);
  double value = constant, from = 0;
  for (const SchedulePoint& point : schedule.points) {
    if (now < point.at) {
      const double part = (now - from) / (point.at - from);
      if (point.shape == "linear") return value + (point.value - value) * part;
      if (point.shape == "cosine")
        return point.value + (value - point.value) * 0.5 * (1 + std::cos(std::numbers::pi * part));
      return value;
    }
    value = point.value;
    from = point.at;
  }
  return value;
}

double learning_rate(const RunConfig& run, int64_t tokens, int64_t step) {
  const double value = schedule_value(run.schedule.lr, run.optim.lr, tokens, step - 1);
  if (run.schedule.warmup_steps <= 0) return value;
  return value * std::min(1.0, static_cast<double>(step) / static_cast<double>(run.schedule.warmup_steps));
}

}  // namespace dsv3
