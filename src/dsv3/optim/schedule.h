#pragma once
// Values that move with training: learning rate, γ, λ, batch size.

#include "dsv3/config/run_config.h"

namespace dsv3 {

// The schedule's value where `tokens` positions have been seen and `steps` updates begun before this one;
// `constant` when it has no points, and before its first point. A point of shape step jumps at its place;
// linear and cosine move from the previous point's value and arrive there; after the last point its value
// stays.
double schedule_value(const Schedule& schedule, double constant, int64_t tokens, int64_t steps);

// Learning rate of step number `step` (from 1): the schedule's value times min(1, step / warmup_steps).
double learning_rate(const RunConfig& run, int64_t tokens, int64_t step);

}  // namespace dsv3
