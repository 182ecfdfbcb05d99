#include "dsv3/base/rank_board.h"

#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <thread>

#include "support/files.h"

namespace dsv3 {
namespace {

using test::expect_error;
using test::TempDir;
using test::write_file;

TEST(RankBoard, TellsWhatARankDoes) {
  TempDir dir;
  RankBoard launcher = RankBoard::create(dir / "board", 3);
  EXPECT_EQ(launcher.ranks(), 3);
  EXPECT_EQ(launcher.status(1).sequence, 0u);
  EXPECT_EQ(launcher.status(1).beat_ms, 0);
  EXPECT_EQ(launcher.status(1).phase, "");

  launcher.set_process(1, 77, RankState::running);
  RankBoard rank = RankBoard::open(dir / "board");
  EXPECT_EQ(rank.ranks(), 3);
  rank.phase(1, "backward");
  EXPECT_EQ(rank.enter(1, "all_gather", "block 3"), 1u);
  RankStatus status = launcher.status(1);
  EXPECT_EQ(status.pid, 77);
  EXPECT_EQ(status.state, RankState::running);
  EXPECT_EQ(status.sequence, 1u);
  EXPECT_TRUE(status.in_collective);
  EXPECT_EQ(status.operation, "all_gather");
  EXPECT_EQ(status.unit, "block 3");
  EXPECT_EQ(status.phase, "backward");
  EXPECT_NEAR(static_cast<double>(status.beat_ms), static_cast<double>(monotonic_ms()), 30'000);

  rank.leave(1, 1);
  status = launcher.status(1);
  EXPECT_FALSE(status.in_collective);
  EXPECT_EQ(status.sequence, 1u);
  EXPECT_EQ(rank.enter(1, "reduce_scatter", ""), 2u);
  EXPECT_EQ(launcher.status(1).unit, "");
  for (int other : {0, 2}) EXPECT_EQ(launcher.status(other).sequence, 0u);
}

TEST(RankBoard, SeveralCollectivesUnderWay) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 1);
  board.enter(0, "all_gather", "block 1");
  board.enter(0, "all_gather", "block 2");
  board.leave(0, 1);
  EXPECT_TRUE(board.status(0).in_collective);
  board.leave(0, 2);
  EXPECT_FALSE(board.status(0).in_collective);
  board.leave(0, 2);  // one too many does no harm
  EXPECT_EQ(board.status(0).operation, "all_gather");
  board.enter(0, "all_gather", "block 3");
  EXPECT_TRUE(board.status(0).in_collective);
}

// The one that a rank waits for need not be the one that it entered last.
TEST(RankBoard, TellsWhatARankWaitsFor) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 1);
  board.enter(0, "reduce_scatter", "block 4");
  board.enter(0, "all_gather", "block 2");
  EXPECT_EQ(board.status(0).waits_for, 0u);
  board.wait(0, 1, "reduce_scatter", "block 4");
  EXPECT_EQ(board.status(0).waits_for, 1u);
  EXPECT_EQ(collective(board.status(0)), "reduce_scatter of block 4");
  EXPECT_EQ(board.status(0).sequence, 2u);
  board.leave(0, 1);
  EXPECT_EQ(board.status(0).waits_for, 0u);
  EXPECT_TRUE(board.status(0).in_collective);
}

// After the one that failed others are waited for, with or without success, before the process ends.
TEST(RankBoard, WhatARankFailedInStays) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 1);
  board.enter(0, "reduce_scatter", "block 4");
  board.enter(0, "all_gather", "block 2");
  board.wait(0, 1, "reduce_scatter", "block 4");
  board.wait(0, 2, "all_gather", "block 2");
  board.leave(0, 2);
  EXPECT_EQ(board.status(0).waits_for, 1u);
  EXPECT_EQ(collective(board.status(0)), "reduce_scatter of block 4");
}

TEST(RankBoard, CutsLongTextsAndEscapesControlCharacters) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 1);
  board.phase(0, std::string(500, 'p'));
  board.enter(0, std::string(500, 'o'), std::string(500, 'u'));
  EXPECT_EQ(board.status(0).phase, std::string(31, 'p'));
  EXPECT_EQ(board.status(0).operation, std::string(31, 'o'));
  EXPECT_EQ(board.status(0).unit, std::string(63, 'u'));
  board.phase(0, "a\x1b[31m");
  EXPECT_EQ(board.status(0).phase, "a\\x1b[31m");
}

TEST(RankBoard, BeatsAreSignsOfLife) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 1);
  board.beat(0);
  const RankStatus status = board.status(0);
  EXPECT_GT(status.beat_ms, 0);
  EXPECT_TRUE(shows_life(status, status.beat_ms + 2 * kHeartbeatMs));
  EXPECT_FALSE(shows_life(status, status.beat_ms + 2 * kHeartbeatMs + 1));
  EXPECT_TRUE(shows_life({}, 1'000'000));  // never beat: starting
  board.farewell(0);
  EXPECT_TRUE(shows_life(board.status(0), status.beat_ms + 1'000'000));
  EXPECT_FALSE(shows_life({.state = RankState::stopped}, 0));
  EXPECT_FALSE(shows_life({.state = RankState::ended}, 0));
}

TEST(RankBoard, AForeignRankIsABug) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 2);
  for (int rank : {-1, 2}) {
    EXPECT_THROW(board.beat(rank), std::out_of_range);
    EXPECT_THROW(board.status(rank), std::out_of_range);
  }
  EXPECT_THROW(RankBoard::create(dir / "none", 0), std::out_of_range);
  EXPECT_THROW(RankBoard::create(dir / "many", kMaxRanks + 1), std::out_of_range);
}

TEST(RankBoard, IsPrivateAndNeverSomebodyElsesFile) {
  TempDir dir;
  RankBoard::create(dir / "board", 2);
  struct stat status {};
  ASSERT_EQ(::stat((dir / "board").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  expect_error(ExitCode::failed, {"/board: cannot be created", "exists"},
               [&] { RankBoard::create(dir / "board", 2); });
  expect_error(ExitCode::failed, {"/none/board: cannot be created: No such file"},
               [&] { RankBoard::create(dir / "none/board", 2); });
}

TEST(RankBoard, WhatIsNoBoardIsRefusedByName) {
  TempDir dir;
  expect_error(ExitCode::failed, {"/none: No such file"}, [&] { RankBoard::open(dir / "none"); });
  expect_error(ExitCode::failed, {"/empty: is no status board"},
               [&] { RankBoard::open(write_file(dir / "empty", "")); });
  expect_error(ExitCode::failed, {"/text: is no status board"},
               [&] { RankBoard::open(write_file(dir / "text", std::string(5000, 'x'))); });
  expect_error(ExitCode::failed, {dir.path().string()}, [&] { RankBoard::open(dir.path()); });
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  expect_error(ExitCode::failed, {"/fifo: is no status board"}, [&] { RankBoard::open(dir / "fifo"); });

  RankBoard::create(dir / "board", 2);
  std::ifstream in(dir / "board", std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(in), {}};
  ASSERT_NO_THROW(RankBoard::open(write_file(dir / "copy", good)));
  std::string other = good;
  other[8] = 9;
  expect_error(ExitCode::failed, {"/version: is of version 9, expected 2"},
               [&] { RankBoard::open(write_file(dir / "version", other)); });
  expect_error(ExitCode::failed, {"/short: has", "for 2 ranks"}, [&] {
    RankBoard::open(write_file(dir / "short", std::string_view(good).substr(0, good.size() - 1)));
  });
  other = good;
  other[12] = 3;
  expect_error(ExitCode::failed, {"/ranks: has", "for 3 ranks"},
               [&] { RankBoard::open(write_file(dir / "ranks", other)); });
  other.replace(12, 4, "\xff\xff\xff\xff");
  expect_error(ExitCode::failed, {"/huge: has", "4294967295 ranks"},
               [&] { RankBoard::open(write_file(dir / "huge", other)); });
}

// A writer that says "a a 1", "b b 2", … as fast as it can, in another process, killed in the middle; every
// snapshot is of one moment, also the one after its death.
TEST(RankBoard, NoSnapshotIsTorn) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 2);
  const pid_t writer = ::fork();
  if (writer == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    RankBoard mine = RankBoard::open(dir / "board");
    for (uint64_t i = 1;; ++i) {
      const std::string text(i % 30 + 1, static_cast<char>('a' + i % 26));
      mine.leave(1, mine.enter(1, text, text));
    }
  }
  uint64_t seen = 0, changes = 0;
  const auto look = [&] {
    const RankStatus status = board.status(1);
    if (status.sequence == 0) return;
    const std::string text(status.sequence % 30 + 1, static_cast<char>('a' + status.sequence % 26));
    ASSERT_EQ(status.operation, text);
    ASSERT_EQ(status.unit, text);
    ASSERT_GE(status.sequence, seen);
    changes += status.sequence != seen;
    seen = status.sequence;
  };
  const int64_t until = monotonic_ms() + 30'000;
  while (changes < 5'000 && monotonic_ms() < until && !HasFatalFailure()) look();
  ::kill(writer, SIGKILL);
  ::waitpid(writer, nullptr, 0);
  for (int i = 0; i < 2; ++i) look();
  EXPECT_GT(changes, 100u);
}

TEST(RankBoard, ThreadsOfARankTakeTurns) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 1);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) board.leave(0, board.enter(0, "all_gather", "block 1"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(board.status(0).sequence, 20'000u);
  EXPECT_FALSE(board.status(0).in_collective);
}

TEST(Place, InWords) {
  RankStatus status;
  EXPECT_EQ(place(status), "while starting");
  status.phase = "load";
  EXPECT_EQ(place(status), "in load");
  status = {
      .sequence = 4, .in_collective = true, .waits_for = 3, .operation = "all_gather", .unit = "block 3"};
  EXPECT_EQ(place(status), "in all_gather of block 3");
  status.phase = "backward";
  EXPECT_EQ(place(status), "in backward, all_gather of block 3");
  status.waits_for = 0;  // it computes while the collective is under way
  EXPECT_EQ(place(status), "in backward, after all_gather of block 3");
  status.unit = "";
  EXPECT_EQ(place(status), "in backward, after all_gather");
}

TEST(MissingRanks, AreNamedWithWhatTheyDo) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 5);
  for (int rank = 0; rank < 5; ++rank) {
    board.phase(rank, "forward");
    board.enter(rank, "all_gather", "block 3");
  }
  EXPECT_EQ(missing_in_words(board, 1), "");
  for (int rank = 0; rank < 5; ++rank) board.leave(rank, 1);
  for (int rank : {0, 1}) board.enter(rank, "all_gather", "block 4");
  board.set_process(3, 1, RankState::stopped);
  board.set_process(4, 1, RankState::ended);
  EXPECT_EQ(missing_in_words(board, 2),
            "rank 2 (in forward, after all_gather of block 3, not yet in collective 2), rank 3 (stopped) and "
            "rank 4 (ended)");
  EXPECT_EQ(missing_in_words(board, 1), "");  // all have left it, whatever happened to them later

  board.set_process(1, 1, RankState::stopped);  // in the collective, but it will not complete
  board.enter(2, "all_gather", "block 4");
  EXPECT_EQ(missing_in_words(board, 2), "rank 1 (stopped), rank 3 (stopped) and rank 4 (ended)");
}

// Rank 0 waits in collective 2. Ranks 1 and 2 wait too, one in vain in the same, one in an earlier one that
// rank 3, stopped, does not complete: it alone is what all wait for.
TEST(MissingRanks, VictimsAreNotNamedBesideTheCulprit) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", 4);
  for (int rank = 0; rank < 4; ++rank) board.enter(rank, "all_gather", "block 3");
  for (int rank : {2, 3}) board.wait(rank, 1, "all_gather", "block 3");
  for (int rank : {0, 1}) {
    board.leave(rank, 1);
    board.wait(rank, board.enter(rank, "all_gather", "block 4"), "all_gather", "block 4");
  }
  EXPECT_EQ(missing_ranks(board, 2), std::vector<int>());
  EXPECT_EQ(
      missing_in_words(board, 2),
      "rank 2 (in all_gather of block 3, not yet in collective 2) and rank 3 (in all_gather of block 3, "
      "not yet in collective 2)")
      << "nobody else is to blame";
  board.set_process(1, 1, RankState::gave_up);
  board.set_process(3, 1, RankState::stopped);
  EXPECT_EQ(missing_ranks(board, 2), std::vector<int>{3});
  EXPECT_EQ(missing_in_words(board, 2), "rank 3 (stopped)");
  board.set_process(3, 1, RankState::running);
  board.set_process(1, 1, RankState::ended);  // for a reason of its own, while it waited
  EXPECT_EQ(missing_ranks(board, 2), std::vector<int>{1});
}

TEST(MissingRanks, OfManyAFewAreNamed) {
  TempDir dir;
  RankBoard board = RankBoard::create(dir / "board", kMaxRanks);
  board.enter(0, "barrier", "");
  const std::string text = missing_in_words(board, 1);
  EXPECT_TRUE(text.starts_with("rank 1 (while starting, not yet in collective 1), rank 2 (")) << text;
  EXPECT_TRUE(text.ends_with("rank 8 (while starting, not yet in collective 1) and 1015 more")) << text;
}

}  // namespace
}  // namespace dsv3
