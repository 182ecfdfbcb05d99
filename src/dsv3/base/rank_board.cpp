#include "dsv3/base/rank_board.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr uint64_t kMagic = 0x44524f42'33767364;  // "dsv3BORD"
constexpr uint32_t kVersion = 2;

// What a rank says about itself. Copied a word at a time, so that the copies are atomics without a lock.
struct Activity {
  uint64_t sequence;
  uint64_t open;     // collectives entered and not left
  uint64_t waiting;  // the one that it waits for, else 0
  char operation[32];
  char unit[64];
  char phase[32];
};
using Words = std::array<uint64_t, sizeof(Activity) / sizeof(uint64_t)>;

template <size_t kSize>
void set_text(char (&out)[kSize], std::string_view text) {
  std::memset(out, 0, kSize);
  text.copy(out, kSize - 1);
}

// The bytes may be anybody's: bounded, and safe for a terminal.
template <size_t kSize>
std::string text_of(const char (&in)[kSize]) {
  return printable(std::string_view(in, ::strnlen(in, kSize)));
}

RunError board_error(const std::string& path, const std::string& what, std::string_view hint = {}) {
  return RunError(printable(path, 400), what, hint);
}

}  // namespace

struct RankBoard::Header {
  uint64_t magic;
  uint32_t version;
  uint32_t ranks;
  uint64_t bytes;  // of the file
  uint64_t unused[5];
};

// The copy that `turn` points to is complete and stays untouched until the one after the next: a reader never
// waits for a writer, and one that dies or is stopped while it writes leaves the last complete copy in place.
struct alignas(64) RankBoard::Record {
  std::atomic<uint64_t> turn;  // copies[turn % 2] is valid
  std::atomic<int64_t> beat_ms;
  std::atomic<int32_t> pid;
  std::atomic<uint32_t> state;
  std::atomic<uint64_t> copies[2][Words().size()];
};

RankBoard::RankBoard(void* memory, size_t bytes)
    : memory_(memory), bytes_(bytes), writing_(std::make_unique<std::mutex>()) {
  static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);
  static_assert(sizeof(Header) == 64 && sizeof(Record) % 64 == 0);
}

RankBoard::~RankBoard() {
  if (memory_) ::munmap(memory_, bytes_);
}

RankBoard::RankBoard(RankBoard&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      bytes_(other.bytes_),
      ranks_(other.ranks_),
      writing_(std::move(other.writing_)) {}

RankBoard& RankBoard::operator=(RankBoard&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  std::swap(ranks_, other.ranks_);
  std::swap(writing_, other.writing_);
  return *this;
}

RankBoard RankBoard::create(const std::filesystem::path& path, int ranks) {
  if (ranks < 1 || ranks > kMaxRanks) throw std::out_of_range(fmt::format("a board of {} ranks", ranks));
  const std::string name = path.string();
  const size_t bytes = sizeof(Header) + static_cast<size_t>(ranks) * sizeof(Record);
  const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) throw board_error(name, std::string("cannot be created: ") + std::strerror(errno));
  // Allocated now: on a full disk a write to a hole of a mapping is a SIGBUS.
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* memory = error == 0 ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const std::string why = std::strerror(error != 0 ? error : errno);
  ::close(fd);
  if (memory == MAP_FAILED) throw board_error(name, "cannot be created: " + why);
  RankBoard board(memory, bytes);
  board.ranks_ = ranks;
  *static_cast<Header*>(memory) = {kMagic, kVersion, static_cast<uint32_t>(ranks), bytes, {}};
  return board;
}

RankBoard RankBoard::open(const std::filesystem::path& path) {
  const std::string name = path.string();
  const int fd = ::open(name.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) throw board_error(name, std::strerror(errno), "the launcher makes it in its private folder");
  struct stat file {};
  const bool regular = ::fstat(fd, &file) == 0 && S_ISREG(file.st_mode);
  const auto bytes = static_cast<size_t>(regular ? file.st_size : 0);
  void* memory = bytes >= sizeof(Header) ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                                         : MAP_FAILED;
  ::close(fd);
  if (memory == MAP_FAILED)
    throw board_error(name, fmt::format("is no status board, it has {} bytes", bytes));
  RankBoard board(memory, bytes);
  const Header header = *static_cast<const Header*>(memory);
  if (header.magic != kMagic) throw board_error(name, "is no status board");
  if (header.version != kVersion) {
    throw board_error(name, fmt::format("is of version {}, expected {}", header.version, kVersion),
                      "launcher and engine are of two builds");
  }
  const uint64_t expected = sizeof(Header) + uint64_t{header.ranks} * sizeof(Record);
  if (header.ranks < 1 || header.ranks > kMaxRanks || header.bytes != expected || bytes != expected) {
    throw board_error(name,
                      fmt::format("has {} bytes, expected {} for {} ranks", bytes, expected, header.ranks));
  }
  board.ranks_ = static_cast<int>(header.ranks);
  return board;
}

RankBoard::Record& RankBoard::record(int rank) const {
  if (rank < 0 || rank >= ranks_)
    throw std::out_of_range(fmt::format("rank {} on a board of {} ranks", rank, ranks_));
  return reinterpret_cast<Record*>(static_cast<char*>(memory_) + sizeof(Header))[rank];
}

template <class Change>
void RankBoard::change(int rank, Change change) {
  Record& to = record(rank);
  const std::lock_guard lock(*writing_);
  const uint64_t turn = to.turn.load(std::memory_order_relaxed);
  Words words;
  for (size_t i = 0; i < words.size(); ++i) words[i] = to.copies[turn % 2][i].load(std::memory_order_relaxed);
  auto activity = std::bit_cast<Activity>(words);
  change(activity);
  words = std::bit_cast<Words>(activity);
  // The turn that was published last must be seen before any word of the copy that it retired changes.
  std::atomic_thread_fence(std::memory_order_release);
  for (size_t i = 0; i < words.size(); ++i)
    to.copies[(turn + 1) % 2][i].store(words[i], std::memory_order_relaxed);
  to.turn.store(turn + 1, std::memory_order_release);
  to.beat_ms.store(monotonic_ms(), std::memory_order_relaxed);
}

uint64_t RankBoard::enter(int rank, std::string_view operation, std::string_view unit) {
  uint64_t sequence = 0;
  change(rank, [&](Activity& now) {
    sequence = ++now.sequence;
    ++now.open;
    set_text(now.operation, operation);
    set_text(now.unit, unit);
  });
  return sequence;
}

void RankBoard::wait(int rank, uint64_t sequence, std::string_view operation, std::string_view unit) {
  change(rank, [&](Activity& now) {
    if (now.waiting != 0) return;
    now.waiting = sequence;
    set_text(now.operation, operation);
    set_text(now.unit, unit);
  });
}

void RankBoard::leave(int rank, uint64_t sequence) {
  change(rank, [&](Activity& now) {
    now.open -= now.open > 0 ? 1 : 0;
    if (now.waiting == sequence) now.waiting = 0;
  });
}

void RankBoard::phase(int rank, std::string_view text) {
  change(rank, [&](Activity& now) { set_text(now.phase, text); });
}

void RankBoard::beat(int rank) { record(rank).beat_ms.store(monotonic_ms(), std::memory_order_relaxed); }

void RankBoard::farewell(int rank) { record(rank).beat_ms.store(0, std::memory_order_relaxed); }

void RankBoard::set_process(int rank, pid_t pid, RankState state) {
  Record& to = record(rank);
  to.pid.store(pid, std::memory_order_relaxed);
  to.state.store(static_cast<uint32_t>(state), std::memory_order_release);
}

RankStatus RankBoard::status(int rank) const {
  const Record& from = record(rank);
  Words words;
  uint64_t turn = 0;
  do {  // again only when the rank has moved on in between
    turn = from.turn.load(std::memory_order_acquire);
    for (size_t i = 0; i < words.size(); ++i)
      words[i] = from.copies[turn % 2][i].load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
  } while (from.turn.load(std::memory_order_relaxed) != turn);
  const auto activity = std::bit_cast<Activity>(words);
  return {.pid = from.pid.load(std::memory_order_relaxed),
          .state = static_cast<RankState>(from.state.load(std::memory_order_acquire)),
          .sequence = activity.sequence,
          .in_collective = activity.open > 0,
          .waits_for = activity.waiting,
          .operation = text_of(activity.operation),
          .unit = text_of(activity.unit),
          .phase = text_of(activity.phase),
          .beat_ms = from.beat_ms.load(std::memory_order_relaxed)};
}

int64_t monotonic_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

std::string collective(const RankStatus& status) {
  return status.unit.empty() ? status.operation : status.operation + " of " + status.unit;
}

std::string place(const RankStatus& status) {
  const std::string phase = status.phase.empty() ? "" : "in " + status.phase;
  if (status.sequence == 0) return phase.empty() ? "while starting" : phase;
  const bool waits = status.waits_for != 0;
  if (phase.empty()) return (waits ? "in " : "after ") + collective(status);
  return phase + (waits ? ", " : ", after ") + collective(status);
}

bool shows_life(const RankStatus& status, int64_t now_ms) {
  const RankState state = status.state;
  if (state == RankState::stopped || state == RankState::ended || state == RankState::gave_up) return false;
  return status.beat_ms == 0 || now_ms - status.beat_ms <= 2 * kHeartbeatMs;
}

namespace {

struct Missing {
  std::vector<int> culprits, victims;
};

Missing look_for_missing(const RankBoard& board, uint64_t sequence) {
  const int64_t now = monotonic_ms();
  Missing missing;
  for (int rank = 0; rank < board.ranks(); ++rank) {
    const RankStatus status = board.status(rank);
    const bool lives = shows_life(status, now);
    // Several may be under way: one that is in a later collective may be in this one, too.
    if (status.sequence >= sequence && (lives || !status.in_collective)) continue;
    const bool waits = status.waits_for != 0 && (lives || status.state == RankState::gave_up);
    (waits ? missing.victims : missing.culprits).push_back(rank);
  }
  return missing;
}

std::string why_missing(const RankStatus& status, uint64_t sequence, int64_t now_ms) {
  if (status.state == RankState::stopped) return "stopped";
  if (status.state == RankState::ended || status.state == RankState::gave_up) return "ended";
  std::string why = place(status);
  if (status.sequence < sequence) why += fmt::format(", not yet in collective {}", sequence);
  if (!shows_life(status, now_ms))
    why += fmt::format(", silent for {:.0f} s", static_cast<double>(now_ms - status.beat_ms) / 1e3);
  return why;
}

}  // namespace

std::vector<int> missing_ranks(const RankBoard& board, uint64_t sequence) {
  return look_for_missing(board, sequence).culprits;
}

std::string missing_in_words(const RankBoard& board, uint64_t sequence) {
  constexpr size_t kNamed = 8;  // of a thousand ranks
  const auto [culprits, victims] = look_for_missing(board, sequence);
  const std::vector<int>& missing = culprits.empty() ? victims : culprits;
  const int64_t now = monotonic_ms();
  std::vector<std::string> named;
  for (const int rank : missing) {
    if (named.size() == kNamed) {
      named.push_back(fmt::format("{} more", missing.size() - kNamed));
      break;
    }
    named.push_back(fmt::format("rank {} ({})", rank, why_missing(board.status(rank), sequence, now)));
  }
  std::string text;
  for (size_t i = 0; i < named.size(); ++i) {
    if (i > 0) text += i + 1 == named.size() ? " and " : ", ";
    text += named[i];
  }
  return text;
}

}  // namespace dsv3
