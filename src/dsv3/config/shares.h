#pragma once
// Weights of data sources as whole numbers.

#include <cstdint>
#include <span>
#include <vector>

#include "dsv3/config/run_config.h"

namespace dsv3 {

// A blend repeats after as many samples as its shares add up to; more than this would be a table of over 8
// MB. Six digits after the point, adding up to 1, always fit.
inline constexpr int64_t kMaxBlendPeriod = 1 << 20;

// Whole numbers without a common divisor that stand in the exact ratio of the weights, each weight taken as
// the shortest decimal that names it (0.1 is a tenth): {0.7, 0.2, 0.1} -> {7, 2, 1}. Empty when they add up
// to more than kMaxBlendPeriod, or a weight needs more than 18 digits in the unit of the finest. weights:
// finite and > 0.
std::vector<int64_t> whole_shares(std::span<const double> weights);

// Whether sources are a blend: two or more, one of which has a weight.
bool is_blend(std::span<const DataSource> sources);
// whole_shares() of their weights, 1 where none is given.
std::vector<int64_t> blend_shares(std::span<const DataSource> sources);

}  // namespace dsv3
