#pragma once
// Commands of runs that save and go on.

#include <string>
#include <vector>

#include "cli/ranks.h"

namespace dsv3::test {

// A run that saves every third step.
inline std::vector<std::string> saving(const fs::path& out, int64_t steps,
                                       std::vector<std::string> more = {}) {
  more.insert(more.end(), {"--checkpoint.every=3", "--train.dtype=fp32"});
  return train(out, more, steps);
}

inline std::vector<std::string> going_on(const fs::path& out, int64_t steps,
                                         std::vector<std::string> more = {}) {
  more.push_back("--checkpoint.resume=auto");
  return saving(out, steps, more);
}

}  // namespace dsv3::test
