#include "dsv3/cli/core/verdict.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr int64_t kSameMomentMs = 500;

bool failed(const RankEnd& end) { return !end.by_launcher && (end.signal != 0 || end.code != 0); }

// Ended as it should, or stopped by a signal that a user sent to all ranks.
bool quiet(int code) { return code == 0 || code == 75 || code == 128 + SIGINT || code == 128 + SIGTERM; }

// Lower tells more.
int rank_of_failure(const RankEnd& end) {
  if (end.signal == SIGABRT) return 2;
  if (end.signal != 0) return 0;
  return end.code == 1 ? 3 : 1;
}

int common_code(std::span<const RankEnd> ranks) {
  std::optional<int> code;
  for (const RankEnd& end : ranks) {
    if (end.by_launcher) continue;
    if (end.signal != 0 || (code && *code != end.code)) return 1;
    code = end.code;
  }
  return code.value_or(1);
}

// A rank that the launcher ended was too slow to say it, or waited for the others: it need not have the line,
// but one rank's line alone is not everybody's.
std::string common_error(std::span<const RankEnd> ranks) {
  std::string error;
  size_t told = 0;
  for (const RankEnd& end : ranks) {
    if (end.error.empty() && end.by_launcher) continue;
    if (end.error.empty() || !(failed(end) || end.by_launcher) || (told > 0 && end.error != error)) return {};
    error = end.error;
    ++told;
  }
  return told > 1 ? error : std::string();
}

std::optional<int> culprit(std::span<const RankEnd> ranks) {
  std::optional<int64_t> first;
  for (const RankEnd& end : ranks) {
    if (failed(end)) first = std::min(first.value_or(end.time_ms), end.time_ms);
  }
  std::optional<int> named;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!failed(ranks[i]) || ranks[i].time_ms > *first + kSameMomentMs) continue;
    const auto key = [&](size_t rank) {
      return std::pair(rank_of_failure(ranks[rank]), ranks[rank].time_ms);
    };
    if (!named || key(i) < key(static_cast<size_t>(*named))) named = static_cast<int>(i);
  }
  return named;
}

}  // namespace

Verdict judge(std::span<const RankEnd> ranks) {
  Verdict verdict{.code = common_code(ranks)};
  const bool signalled = std::any_of(ranks.begin(), ranks.end(),
                                     [](const RankEnd& end) { return !end.by_launcher && end.signal != 0; });
  if (!signalled && verdict.code != 0) verdict.common_error = common_error(ranks);
  const bool told =
      std::any_of(ranks.begin(), ranks.end(), [](const RankEnd& end) { return !end.error.empty(); });
  if (!verdict.common_error.empty() || (quiet(verdict.code) && !told)) return verdict;
  verdict.culprit = culprit(ranks);
  return verdict;
}

std::string describe(const RankEnd& end) {
  std::string text =
      end.signal != 0 ? "killed by " + signal_name(end.signal) : fmt::format("ended with code {}", end.code);
  text += " " + end.place;
  if (!end.last_lines.empty()) text += fmt::format("; its last lines: {}", fmt::join(end.last_lines, " | "));
  return text;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? std::string("SIG") + name : fmt::format("signal {}", signal);
}

}  // namespace dsv3
