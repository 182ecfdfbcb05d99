#include "dsv3/cli/core/verdict.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr std::string_view kErrorPrefix = "dsv3: error: ";
constexpr int64_t kSameMomentMs = 500;

bool failed(const RankEnd& end) { return !end.by_launcher && (end.signal != 0 || end.code != 0); }

// Ended as it should, or stopped by a signal that a user sent to all ranks.
bool quiet(int code) { return code == 0 || code == 75 || code == 128 + SIGINT || code == 128 + SIGTERM; }

// Lower tells more.
int rank_of_failure(const RankEnd& end) {
  if (end.signal == SIGABRT || (end.signal != 0 && !end.error.empty())) return 2;
  if (end.signal != 0) return 0;
  return end.code == 1 ? 3 : 1;
}

int common_code(std::span<const RankEnd> ranks) {
  std::optional<int> code;
  bool consequences = false;
  for (const RankEnd& end : ranks) {
    consequences |= is_consequence(end);
    if (end.by_launcher || is_consequence(end)) continue;
    if (end.signal != 0 || (code && *code != end.code)) return 1;
    code = end.code;
  }
  // The consequence of no failure is one itself.
  return code && !(consequences && quiet(*code)) ? *code : 1;
}

// A rank that the launcher ended was too slow to say it, or waited for the others: it need not have the line,
// but one rank's line alone is not everybody's. A consequence has none to add.
std::string common_error(std::span<const RankEnd> ranks) {
  std::string error;
  size_t told = 0;
  for (const RankEnd& end : ranks) {
    if (is_consequence(end) || (end.error.empty() && end.by_launcher)) continue;
    if (end.error.empty() || !(failed(end) || end.by_launcher) || (told > 0 && end.error != error)) return {};
    error = end.error;
    ++told;
  }
  return told > 1 ? error : std::string();
}

// The first rank that failed, in the order in which the launcher noticed.
std::optional<size_t> first_failure(std::span<const RankEnd> ranks) {
  std::optional<size_t> first;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (failed(ranks[i]) && (!first || ranks[i].time_ms < ranks[*first].time_ms)) first = i;
  }
  return first;
}

std::optional<int> culprit(std::span<const RankEnd> ranks, int64_t first_ms) {
  std::optional<int> named;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!failed(ranks[i]) || is_consequence(ranks[i]) || ranks[i].time_ms > first_ms + kSameMomentMs)
      continue;
    const auto key = [&](size_t rank) {
      return std::pair(rank_of_failure(ranks[rank]), ranks[rank].time_ms);
    };
    if (!named || key(i) < key(static_cast<size_t>(*named))) named = static_cast<int>(i);
  }
  return named;
}

// Of several missing ranks one without life tells more than one that may only be slow.
int most_telling(std::span<const RankEnd> ranks, const std::vector<int>& missing) {
  const auto lifeless = std::find_if(missing.begin(), missing.end(), [&](int rank) {
    const RankEnd& end = ranks[static_cast<size_t>(rank)];
    return !end.by_launcher || !end.lifeless.empty();
  });
  return lifeless == missing.end() ? missing.front() : *lifeless;
}

}  // namespace

bool says_why(const RankEnd& end) { return rank_of_failure(end) < 2; }

bool is_consequence(const RankEnd& end) {
  return (end.by_launcher || !says_why(end)) && !end.missing.empty();
}

Verdict judge(std::span<const RankEnd> ranks) {
  Verdict verdict{.code = common_code(ranks)};
  const bool signalled = std::any_of(ranks.begin(), ranks.end(),
                                     [](const RankEnd& end) { return !end.by_launcher && end.signal != 0; });
  if (!signalled && verdict.code != 0) verdict.common_error = common_error(ranks);
  const bool told =
      std::any_of(ranks.begin(), ranks.end(), [](const RankEnd& end) { return !end.error.empty(); });
  if (!verdict.common_error.empty() || (quiet(verdict.code) && !told)) return verdict;
  const std::optional<size_t> first = first_failure(ranks);
  if (!first) return verdict;
  verdict.culprit = culprit(ranks, ranks[*first].time_ms);
  if (!verdict.culprit && is_consequence(ranks[*first])) {
    verdict.culprit = most_telling(ranks, ranks[*first].missing);
    if (!failed(ranks[static_cast<size_t>(*verdict.culprit)])) verdict.waited_in = ranks[*first].waited_in;
  }
  return verdict;
}

std::string describe(const RankEnd& end, const std::string& waited_in) {
  const bool died = !end.by_launcher && end.signal != 0;
  if (!died && end.lifeless.empty() && !end.error.empty()) return end.error.substr(kErrorPrefix.size());
  std::string text = died                    ? "killed by " + signal_name(end.signal)
                     : !end.lifeless.empty() ? end.lifeless
                     : end.by_launcher       ? "still"
                                             : fmt::format("ended with code {}", end.code);
  text += " " + end.place;
  if (!waited_in.empty()) text += "; the others waited for it in " + waited_in;
  if (!end.last_lines.empty()) text += fmt::format("; its last lines: {}", fmt::join(end.last_lines, " | "));
  return text;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? std::string("SIG") + name : fmt::format("signal {}", signal);
}

}  // namespace dsv3
