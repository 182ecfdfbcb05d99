#pragma once
// Watches the ranks of a job until all have ended: passes on what they print and the user's signals, names a
// rank that the others wait for, and ends the job when one rank fails.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/base/rank_board.h"
#include "dsv3/cli/core/rank_output.h"
#include "dsv3/cli/core/rank_process.h"
#include "dsv3/cli/core/signal_pipe.h"
#include "dsv3/cli/core/verdict.h"

namespace dsv3 {

class Supervisor {
 public:
  // Both outlive it.
  Supervisor(RankBoard& board, SignalPipe& signals) : board_(board), signals_(signals) {}
  // Kills and reaps what is still running.
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // The next rank, from 0.
  void add(RankProcess process);

  // Returns when all have ended and everything that they printed is out, error lines aside (RankEnd::error):
  //   stdout of rank 0 goes to stdout byte by byte, all else to stderr as lines with "[rank R] " before them;
  //   the first SIGINT or SIGTERM (SIGHUP: as SIGTERM) goes to all ranks, the next, or SIGQUIT, kills them;
  //   SIGTSTP stops ranks and launcher until the launcher continues;
  //   a rank that fails, which codes 0 and 75 don't mean, leaves the others 2 s, then SIGTERM (stopped ones
  //   SIGKILL), 1 s, SIGKILL.
  // RunError when stdout cannot be written, which ends the job too.
  void run();

  // After run(). The signal for which the user had the ranks killed, else 0.
  int killed_by() const { return killed_by_; }
  std::vector<RankEnd> ends() const;

 private:
  struct Rank {
    RankProcess process;
    RankLines out, err;
    RankEnd end = {};
    bool alive = true;
    int stopped = 0;            // the signal, when somebody else than the launcher stopped it
    bool named_silent = false;  // until it beats again
  };

  void wait_for_something();
  void read(Rank& rank, size_t index, bool from_err);
  void take_signals();
  void send_all(int signal);
  void suspend();
  void reap();
  void note_end(size_t index, int status, int64_t now);
  void note_ended(size_t index);
  void note_stopped(size_t index, int signal);
  void note_continued(size_t index);
  void refresh_beat(size_t index);
  void end_when_due(int64_t now);
  void note_who_waits(int64_t now);
  void name_silent(int64_t now);
  std::string waited_for_in(size_t index) const;
  bool done() const;

  RankBoard& board_;
  SignalPipe& signals_;
  Outlet stdout_{1}, stderr_{2};
  std::vector<Rank> ranks_;
  size_t alive_ = 0;
  int user_signal_ = 0, killed_by_ = 0;
  std::optional<int64_t> end_at_ms_;  // when SIGTERM, later SIGKILL, is due
  bool terminated_ = false;           // SIGTERM has been sent
};

}  // namespace dsv3
