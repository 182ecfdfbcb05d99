#include "dsv3/cli/core/verdict.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>

namespace dsv3 {
namespace {

RankEnd exited(int code, int64_t time_ms = 0, std::string error = {}) {
  return {.code = code, .time_ms = time_ms, .error = std::move(error)};
}
RankEnd killed(int signal, int64_t time_ms = 0) { return {.signal = signal, .time_ms = time_ms}; }
RankEnd ended(RankEnd end) {
  end.by_launcher = true;
  return end;
}

TEST(Verdict, CodesThatAllAgreeOn) {
  for (int code : {0, 75, 130, 143}) {
    const Verdict verdict = judge(std::vector{exited(code), exited(code)});
    EXPECT_EQ(verdict.code, code);
    EXPECT_FALSE(verdict.culprit) << code;
  }
  for (int code : {1, 2, 3, 4}) {
    const Verdict verdict = judge(std::vector{exited(code, 7), exited(code, 5)});
    EXPECT_EQ(verdict.code, code);
    EXPECT_EQ(verdict.culprit, 1) << "the earliest, since none says why";
  }
}

TEST(Verdict, ElseOne) {
  EXPECT_EQ(judge(std::vector{exited(0), exited(3)}).code, 1);
  EXPECT_EQ(judge(std::vector{exited(3), exited(4)}).code, 1);
  EXPECT_EQ(judge(std::vector{killed(SIGABRT), killed(SIGABRT)}).code, 1);
  EXPECT_EQ(judge(std::vector{exited(75), exited(0)}).culprit, 0);
}

TEST(Verdict, RanksThatTheLauncherEndedHaveNoSay) {
  const Verdict verdict = judge(std::vector{ended(exited(75)), exited(4), ended(killed(SIGKILL))});
  EXPECT_EQ(verdict.code, 4);
  EXPECT_EQ(verdict.culprit, 1);
}

TEST(Verdict, OneErrorOfAllIsCommon) {
  const std::string error = "dsv3: error: x.bin: no such file";
  Verdict verdict = judge(std::vector{exited(2, 0, error), exited(2, 1, error)});
  EXPECT_EQ(verdict.common_error, error);
  EXPECT_EQ(verdict.code, 2);
  EXPECT_FALSE(verdict.culprit);
  verdict = judge(std::vector{exited(2, 0, error), ended(killed(SIGTERM)), exited(2, 1, error)});
  EXPECT_EQ(verdict.common_error, error) << "one was too slow to say it";

  EXPECT_EQ(judge(std::vector{exited(2, 0, error), exited(2, 1, error + "2")}).common_error, "");
  EXPECT_EQ(judge(std::vector{exited(2, 0, error), exited(2, 1)}).common_error, "");
  EXPECT_EQ(judge(std::vector{exited(2, 0, error), exited(0, 1)}).common_error, "");
  EXPECT_EQ(judge(std::vector{exited(1, 0, error), killed(SIGKILL), exited(1, 0, error)}).common_error, "");
  verdict = judge(std::vector{ended(killed(SIGTERM)), exited(3, 0, error)});
  EXPECT_EQ(verdict.common_error, "") << "one rank's error need not be everybody's";
  EXPECT_EQ(verdict.culprit, 1);
}

// Whatever order they are noticed in.
TEST(Verdict, NamesTheDeadRankAndNotItsSurvivors) {
  std::vector<int64_t> times = {0, 10, 200, 400};
  do {
    const auto at = [&](size_t i) { return times[i]; };
    EXPECT_EQ(judge(std::vector{exited(1, at(0)), exited(1, at(1)), killed(SIGKILL, at(2)), exited(1, at(3))})
                  .culprit,
              2);
    EXPECT_EQ(
        judge(std::vector{killed(SIGABRT, at(0)), exited(1, at(1)), killed(SIGSEGV, at(2)), exited(3, at(3))})
            .culprit,
        2);
    EXPECT_EQ(judge(std::vector{killed(SIGABRT, at(0)), exited(1, at(1)), exited(3, at(2)), exited(1, at(3))})
                  .culprit,
              2);
    EXPECT_EQ(judge(std::vector{exited(0, at(0)), exited(1, at(1)), killed(SIGABRT, at(2)), exited(1, at(3))})
                  .culprit,
              2);
  } while (std::next_permutation(times.begin(), times.end()));
}

TEST(Verdict, WhatHappensLaterIsAConsequence) {
  EXPECT_EQ(judge(std::vector{killed(SIGABRT, 600), exited(1, 0), exited(3, 900)}).culprit, 1);
  EXPECT_EQ(judge(std::vector{ended(killed(SIGKILL, 0)), exited(1, 10)}).culprit, 1);
}

RankEnd waited(RankEnd end, std::vector<int> missing) {
  end.waited_in = "all_gather of block 3";
  end.missing = std::move(missing);
  return end;
}

TEST(Verdict, AConsequenceHasNoSay) {
  Verdict verdict = judge(std::vector{waited(exited(1, 0), {1}), exited(3, 400, "dsv3: error: a: b")});
  EXPECT_EQ(verdict.code, 3);
  EXPECT_EQ(verdict.culprit, 1);
  EXPECT_EQ(verdict.waited_in, "") << "its own failure says more";
  // Also when the culprit takes its time to end, or others that fail later have a reason of their own.
  for (const int64_t late : {900, 1900}) {
    verdict = judge(std::vector{waited(killed(SIGABRT, 0), {1}), exited(3, late), waited(exited(1, 5), {1})});
    EXPECT_EQ(verdict.code, 3);
    EXPECT_EQ(verdict.culprit, 1);
  }
  RankEnd crashed = waited(killed(SIGSEGV, 0), {1});
  EXPECT_EQ(judge(std::vector{crashed, exited(3, 5)}).culprit, 0);
  crashed.error = "dsv3: error: closed";  // on its way out
  EXPECT_EQ(judge(std::vector{crashed, exited(3, 5)}).culprit, 1);
  EXPECT_EQ(judge(std::vector{crashed, exited(3, 5)}).code, 3);
  verdict = judge(std::vector{exited(4, 0), waited(exited(1, 0), {0}), exited(3, 0)});
  EXPECT_EQ(verdict.code, 1) << "two codes";
  const std::string error = "dsv3: error: x.bin: no such file";
  verdict =
      judge(std::vector{exited(2, 0, error), waited(exited(1, 0, "gone"), {0, 2}), exited(2, 0, error)});
  EXPECT_EQ(verdict.common_error, error);
  EXPECT_EQ(verdict.code, 2);
}

TEST(Verdict, NamesTheOneThatTheOthersWaitedFor) {
  RankEnd slow = ended(exited(143)), stopped = ended(killed(SIGKILL));
  stopped.lifeless = "stopped by SIGSTOP";
  Verdict verdict =
      judge(std::vector{waited(exited(1, 5), {1, 2}), slow, stopped, waited(exited(1, 9), {2})});
  EXPECT_EQ(verdict.code, 1);
  EXPECT_EQ(verdict.culprit, 2);
  EXPECT_EQ(verdict.waited_in, "all_gather of block 3");
  EXPECT_EQ(judge(std::vector{waited(exited(1), {1}), slow}).culprit, 1);
  // Left in peace, too early.
  for (int code : {0, 75}) EXPECT_EQ(judge(std::vector{waited(exited(1), {1}), exited(code, 50)}).code, 1);
}

TEST(Describe, OneLine) {
  EXPECT_EQ(describe({.signal = SIGKILL,
                      .place = "in backward, all_gather of block 3",
                      .last_lines = {"first", "second"}},
                     ""),
            "killed by SIGKILL in backward, all_gather of block 3; its last lines: first | second");
  EXPECT_EQ(describe({.code = 3, .place = "in load"}, ""), "ended with code 3 in load");
  EXPECT_EQ(describe({.code = 3, .place = "in load", .error = "dsv3: error: a: b (c)"}, ""), "a: b (c)");
  EXPECT_EQ(
      describe(
          {.signal = SIGKILL, .by_launcher = true, .place = "in forward", .lifeless = "stopped by SIGSTOP"},
          "all_gather of block 3"),
      "stopped by SIGSTOP in forward; the others waited for it in all_gather of block 3");
  EXPECT_EQ(describe({.code = 143, .by_launcher = true, .place = "in forward"}, "all_gather of block 3"),
            "still in forward; the others waited for it in all_gather of block 3");
  EXPECT_EQ(signal_name(SIGABRT), "SIGABRT");
  EXPECT_EQ(signal_name(40), "signal 40");
}

}  // namespace
}  // namespace dsv3
