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

TEST(Describe, OneLine) {
  EXPECT_EQ(describe({.signal = SIGKILL,
                      .place = "in backward, all_gather of block 3",
                      .last_lines = {"first", "second"}}),
            "killed by SIGKILL in backward, all_gather of block 3; its last lines: first | second");
  EXPECT_EQ(describe({.code = 3, .place = "in load"}), "ended with code 3 in load");
  EXPECT_EQ(signal_name(SIGABRT), "SIGABRT");
  EXPECT_EQ(signal_name(40), "signal 40");
}

}  // namespace
}  // namespace dsv3
