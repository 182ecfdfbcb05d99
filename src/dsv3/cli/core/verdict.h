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
  // The rest of what it did when it ended, or when the launcher gave the job up.
  std::string place = {};         // base/rank_board.h
  std::string lifeless = {};      // "stopped by SIGSTOP" or "without a sign of life for 5 s" at that moment
  std::string waited_in = {};     // "all_gather of block 3": the collective that it waited for, if any
  std::vector<int> missing = {};  // who kept that one from completing, victims aside
  std::string error = {};         // its line "dsv3: error: …", if any
  std::vector<std::string> last_lines = {};  // of its stderr
};

struct Verdict {
  // The code of all ranks that ended by themselves, consequences aside, when they agree, else 1. A signal is
  // no code: 1.
  int code = 0;
  // All failed for a reason that they tell in the same words (a missing file): it is said once, as by one
  // process.
  std::string common_error = {};
  // The rank to name otherwise. None when all ended well, or were stopped by a signal and say nothing.
  std::optional<int> culprit = {};
  // The collective in which the others waited for a culprit that did not fail by itself.
  std::string waited_in = {};
};

// Ended in a way that has a reason of its own: not as ranks also do when a peer is gone, with code 1, SIGABRT
// (Gloo's way), or any signal once it has said its error and is on its way out.
bool says_why(const RankEnd& end);

// It failed without a reason of its own, or was ended, while it waited in a collective that others kept from
// completing.
bool is_consequence(const RankEnd& end);

// Survivors of a dead rank fail within milliseconds of it, and are noticed in any order. So of the failures
// within half a second of the first, consequences aside, the most telling one is the culprit's: a signal,
// then an exit code with a meaning, then SIGABRT, then exit code 1; the earliest of these. When there are
// consequences alone, it is the rank that the first of them waited for: stopped, silent, or busy with
// something else.
Verdict judge(std::span<const RankEnd> ranks);

// "killed by SIGKILL in backward, all_gather of block 3; its last lines: …", "ended with code 3 in load",
// "stopped by SIGSTOP in forward; the others waited for it in all_gather of block 3", or the error that the
// rank has said itself.
std::string describe(const RankEnd& end, const std::string& waited_in);

// "SIGKILL"
std::string signal_name(int signal);

}  // namespace dsv3
