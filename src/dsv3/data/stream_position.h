#pragma once
// Where a stream of samples stands, one cursor a source: what is saved, and what a run with other sources or
// weights goes on from.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dsv3/config/run_config.h"

namespace dsv3 {

// One order of samples: a source of a blend, or all sources where they stand one behind the other.
struct Walk {
  std::vector<std::string> sources = {};  // their prefixes, absolute
  int64_t share = 1;                      // of the blend's period
  // Which permutation it takes of those that data.seed gives: kSeedItself, or one of a source's own. It stays
  // with a source whatever happens to the others, so that no sample comes twice in an epoch.
  int64_t order = 0;
  int64_t cursor = 0;  // samples that it has given
};
// The seed without a number, which sources that are no blend take.
inline constexpr int64_t kSeedItself = -1;

struct StreamPosition {
  int64_t samples = 0;  // since the blend began
  std::vector<Walk> walks = {};
};

// The walks of a run that begins. Sources of a blend have one each, others one together. UsageError: weights
// without an exact blend (config/shares.h).
std::vector<Walk> first_walks(std::span<const DataSource> sources);

// Gives each of `walks` the order and the cursor of the saved one with the same prefixes, or, where files
// were moved, of the only one with the same file names; a new one gets an order that no other has. Returns
// what a person should hear, a line a source; nothing when the blend is the saved one, which then goes on
// within its period.
std::vector<std::string> take_over(std::vector<Walk>& walks, const StreamPosition& saved);

}  // namespace dsv3
