#pragma once
// What each rank of a local job is doing, in a file that the ranks and their launcher map. Collectives name
// no rank when one is missing; this does, also for a rank that was killed or stopped in the middle of a
// write.

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace dsv3 {

// A rank beats this often. One that has not done so for two of them is named to the user.
inline constexpr int64_t kHeartbeatMs = 1000;
inline constexpr int kMaxRanks = 1024;

// CLOCK_MONOTONIC: the same for all processes of a machine, whatever happens to its date.
int64_t monotonic_ms();

// The process of a rank as its launcher sees it; unknown when nobody launches (a board made in a test).
// gave_up: ended in a way that a rank also ends in when others don't come to a collective.
enum class RankState : uint32_t { unknown, running, stopped, ended, gave_up };

struct RankStatus {
  pid_t pid = 0;  // 0: not started
  RankState state = RankState::unknown;
  uint64_t sequence = 0;       // of the collective that it entered last, from 1; 0: none yet
  bool in_collective = false;  // entered one and not left it; it may compute meanwhile
  uint64_t waits_for = 0;      // the collective in which it can do nothing but wait, also when that failed
  std::string operation = {};  // of the collective that it entered or waited for last: "all_gather"
  std::string unit = {};       // what it was for: "block 3"
  std::string phase = {};      // "load", "forward", "backward", "optimizer", …; empty before the first
  int64_t beat_ms = 0;  // monotonic_ms() of the newest sign of life; 0: none yet, or it has said farewell
};

// Each rank writes its own record from any of its threads; anybody reads all of them. No call waits for
// another process. A rank outside 0 … ranks() - 1 is std::out_of_range.
class RankBoard {
 public:
  // The launcher's: a new file of mode 0600. RunError naming the file when it exists or has no room.
  static RankBoard create(const std::filesystem::path& path, int ranks);
  // A rank's. RunError naming the file when it is no board of this version or has another size than it says.
  static RankBoard open(const std::filesystem::path& path);
  ~RankBoard();
  RankBoard(RankBoard&& other) noexcept;
  RankBoard& operator=(RankBoard&& other) noexcept;

  int ranks() const { return ranks_; }

  // The rank takes part in its next collective; call it when the collective is issued. Returns its number.
  // Numbers count the collectives of all groups. Ranks do equally many in the same order, so that equal
  // numbers mean the same collective. Texts are cut to 31 (operation), 63 (unit) and 31 (phase) bytes.
  uint64_t enter(int rank, std::string_view operation, std::string_view unit);
  // From here the rank waits for collective `sequence`, one of those that it is in, until it leaves that one.
  // A rank that waits again without has failed and only cleans up: what it failed in stays on the board.
  void wait(int rank, uint64_t sequence, std::string_view operation, std::string_view unit);
  // Collective `sequence` has completed. Several may be under way: as many leaves as enters.
  void leave(int rank, uint64_t sequence);
  void phase(int rank, std::string_view text);
  // A sign of life, every kHeartbeatMs; the four above are one too.
  void beat(int rank);
  // The last sign: it is leaving, which may take long, like the time before the first beat.
  void farewell(int rank);

  // The launcher's.
  void set_process(int rank, pid_t pid, RankState state);

  // All fields of one moment, pid, state and beat aside; no text is torn.
  RankStatus status(int rank) const;

 private:
  struct Header;
  struct Record;
  RankBoard(void* memory, size_t bytes);
  Record& record(int rank) const;
  template <class Change>
  void change(int rank, Change change);

  void* memory_ = nullptr;
  size_t bytes_ = 0;
  int ranks_ = 0;
  std::unique_ptr<std::mutex> writing_;  // threads of this process; other processes never wait
};

// "all_gather of block 3": the collective that the rank entered or waited for last.
std::string collective(const RankStatus& status);

// "in backward, all_gather of block 3" when it waits there, "in forward, after all_gather of block 3", "in
// load", "while starting".
std::string place(const RankStatus& status);

// True when the rank is alive as far as anybody can tell: neither stopped nor ended nor silent for two
// heartbeats. One that does not beat yet or any more is starting or leaving, which may take long.
bool shows_life(const RankStatus& status, int64_t now_ms);

// Who keeps collective `sequence` from completing, ascending: those that have not entered it, and those that
// are in it or a later one and show no life. One that waits in a collective itself, or gave up there, is a
// victim like the one that asks and left out.
std::vector<int> missing_ranks(const RankBoard& board, uint64_t sequence);

// The same in words: "rank 2 (in forward, after all_gather of block 3, not yet in collective 41) and rank 3
// (stopped)". When there are victims alone, it names them; empty when there are none either.
std::string missing_in_words(const RankBoard& board, uint64_t sequence);

}  // namespace dsv3
