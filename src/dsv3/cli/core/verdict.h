#pragma once
// From how each rank ended: the job's exit code, and the rank that was first to fail.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace dsv3 {

struct RankEnd {
  int code = 0;              // exit code
  int signal = 0;            // that killed it, else 0
  bool by_launcher = false;  // ended because the launcher ended it after another rank had failed
  int64_t time_ms = 0;       // when the launcher noticed
  std::string place = {};    // base/rank_board.h
  std::string error = {};    // its line "dsv3: error: …", if any
  std::vector<std::string> last_lines = {};  // of its stderr
};

struct Verdict {
  // The code of all ranks that ended by themselves when they agree, else 1. A signal is no code: 1.
  int code = 0;
  // All failed for a reason that they tell in the same words (a missing file): it is said once, as by one
  // process.
  std::string common_error = {};
  // The rank to name otherwise. None when all ended well, or were stopped by a signal and say nothing.
  std::optional<int> culprit = {};
};

// Survivors of a dead rank fail within milliseconds of it, and are noticed in any order. So of the failures
// within half a second of the first the most telling one is the culprit's: a signal, then an exit code with a
// meaning, then SIGABRT (Gloo's own way of failing when a peer is gone), then exit code 1; the earliest of
// these.
Verdict judge(std::span<const RankEnd> ranks);

// "killed by SIGKILL in backward, all_gather of block 3; its last lines: …", "ended with code 3 in load".
std::string describe(const RankEnd& end);

// "SIGKILL"
std::string signal_name(int signal);

}  // namespace dsv3
