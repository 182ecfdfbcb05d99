#include "dsv3/cli/core/supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr int64_t kGraceMs = 2000;      // for ranks that fail for the same reason to say so
constexpr int64_t kTerminateMs = 1000;  // from SIGTERM to SIGKILL
constexpr int64_t kLookMs = kHeartbeatMs / 4;

// The whole group: a rank's own helpers belong to it. The group lives at least until the rank is reaped.
void send(pid_t pid, int signal) { ::kill(-pid, signal); }

}  // namespace

Supervisor::~Supervisor() {
  for (Rank& rank : ranks_) {
    if (!rank.alive) continue;
    send(rank.process.pid, SIGKILL);
    while (::waitpid(rank.process.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

void Supervisor::add(RankProcess process) {
  const int rank = static_cast<int>(ranks_.size());
  board_.set_process(rank, process.pid, RankState::running);
  ranks_.push_back({.process = std::move(process),
                    .out = RankLines(rank, /*is_stderr=*/false, stderr_),
                    .err = RankLines(rank, /*is_stderr=*/true, stderr_)});
  ++alive_;
}

void Supervisor::run() {
  while (!done()) {
    wait_for_something();
    take_signals();
    reap();
    const int64_t now = monotonic_ms();
    if (stdout_.error() != 0 && !end_at_ms_ && !terminated_) end_at_ms_ = now;
    end_when_due(now);
    name_silent(now);
  }
  if (!terminated_) note_who_waits(monotonic_ms());
  if (stdout_.error() != 0 && killed_by_ == 0)
    throw RunError("standard output", std::strerror(stdout_.error()));
}

bool Supervisor::done() const {
  if (alive_ > 0) return false;
  if (killed_by_ != 0) return true;  // nobody waits for a reader any more
  const bool reading = std::any_of(ranks_.begin(), ranks_.end(),
                                   [](const Rank& rank) { return rank.process.out || rank.process.err; });
  return !reading && !stdout_.waiting() && !stderr_.waiting();
}

std::vector<RankEnd> Supervisor::ends() const {
  std::vector<RankEnd> ends;
  for (const Rank& rank : ranks_) {
    ends.push_back(rank.end);
    ends.back().error = rank.err.error();
    ends.back().last_lines.assign(rank.err.last_lines().begin(), rank.err.last_lines().end());
  }
  return ends;
}

// Sleeps until a signal, output of a rank, or room for output that waits; then moves some of it.
void Supervisor::wait_for_something() {
  std::vector<struct pollfd> fds = {
      {signals_.fd(), POLLIN, 0},
      {stdout_.waiting() ? stdout_.fd() : -1, POLLOUT, 0},
      {stderr_.waiting() ? stderr_.fd() : -1, POLLOUT, 0},
  };
  bool reading = false;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const Outlet& out = i == 0 ? stdout_ : stderr_;
    fds.push_back({out.full() ? -1 : ranks_[i].process.out.get(), POLLIN, 0});
    fds.push_back({stderr_.full() ? -1 : ranks_[i].process.err.get(), POLLIN, 0});
    reading |= fds[fds.size() - 2].fd >= 0 || fds.back().fd >= 0;
  }
  int64_t timeout = kLookMs;
  if (end_at_ms_) timeout = std::clamp<int64_t>(*end_at_ms_ - monotonic_ms(), 0, timeout);
  if (alive_ == 0 && reading) timeout = 0;  // what is in the pipes is all that there will be
  if (::poll(fds.data(), fds.size(), static_cast<int>(timeout)) < 0)
    return;  // a signal: the next turn sees it
  if (fds[1].revents != 0) stdout_.flush_some();
  if (fds[2].revents != 0) stderr_.flush_some();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const auto ready = [&](const struct pollfd& entry) {
      return entry.fd >= 0 && (entry.revents != 0 || alive_ == 0);
    };
    if (ready(fds[3 + 2 * i])) read(ranks_[i], i, /*from_err=*/false);
    if (ready(fds[4 + 2 * i])) read(ranks_[i], i, /*from_err=*/true);
  }
}

void Supervisor::read(Rank& rank, size_t index, bool from_err) {
  Fd& fd = from_err ? rank.process.err : rank.process.out;
  RankLines& lines = from_err ? rank.err : rank.out;
  char bytes[1 << 16];
  const ssize_t n = ::read(fd.get(), bytes, sizeof(bytes));
  if (n > 0) {
    const std::string_view text(bytes, static_cast<size_t>(n));
    if (index == 0 && !from_err) {
      stdout_.write(text);
    } else {
      lines.take(text);
    }
    return;
  }
  if (n < 0 && errno == EINTR) return;
  // A helper that a rank left behind may hold the pipe open for long: after the ranks nobody is waited for.
  if (n < 0 && errno == EAGAIN && alive_ > 0) return;
  lines.finish();
  fd.reset();
}

void Supervisor::take_signals() {
  while (const std::optional<int> signal = signals_.next()) {
    if (*signal == SIGCHLD) continue;
    if (*signal == SIGTSTP) {
      suspend();
    } else if (user_signal_ != 0 || *signal == SIGQUIT || alive_ == 0) {
      if (killed_by_ == 0) killed_by_ = *signal;
      send_all(SIGKILL);
    } else {
      user_signal_ = *signal == SIGHUP ? SIGTERM : *signal;
      send_all(user_signal_);
    }
  }
}

void Supervisor::send_all(int signal) {
  for (Rank& rank : ranks_) {
    if (!rank.alive) continue;
    send(rank.process.pid, signal);
    if (rank.stopped != 0) send(rank.process.pid, SIGCONT);  // it could not obey
  }
}

// Ctrl-Z reaches the launcher alone; it means the job. The kernel forgets a stop that SIGCONT ended before
// waitpid saw it, so these stops are never named.
void Supervisor::suspend() {
  for (Rank& rank : ranks_) {
    if (rank.alive && rank.stopped == 0) send(rank.process.pid, SIGSTOP);
  }
  signals_.stop_self();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    refresh_beat(i);
    if (ranks_[i].alive && ranks_[i].stopped == 0) send(ranks_[i].process.pid, SIGCONT);
  }
}

void Supervisor::reap() {
  const int64_t now = monotonic_ms();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    while (ranks_[i].alive) {
      int status = 0;
      const pid_t pid = ::waitpid(ranks_[i].process.pid, &status, WNOHANG | WUNTRACED | WCONTINUED);
      if (pid < 0 && errno == EINTR) continue;
      if (pid <= 0) break;
      if (WIFSTOPPED(status)) {
        note_stopped(i, WSTOPSIG(status));
      } else if (WIFCONTINUED(status)) {
        note_continued(i);
      } else {
        note_end(i, status, now);
      }
    }
  }
}

void Supervisor::note_end(size_t index, int status, int64_t now) {
  Rank& rank = ranks_[index];
  rank.alive = false;
  --alive_;
  rank.end.time_ms = now;
  rank.end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  rank.end.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  if (user_signal_ != 0 && rank.end.signal == user_signal_) {  // stopped as asked, before it had a handler
    rank.end.signal = 0;
    rank.end.code = 128 + user_signal_;
  }
  rank.stopped = 0;
  note_ended(index);
  // 75: the ranks save on the user's signal, and need not end at the same time.
  const bool failed = rank.end.signal != 0 || (rank.end.code != 0 && rank.end.code != 75);
  if (failed && !end_at_ms_ && !terminated_) end_at_ms_ = now + kGraceMs;
}

void Supervisor::note_ended(size_t index) {
  Rank& rank = ranks_[index];
  rank.end.error = rank.err.error();
  board_.set_process(static_cast<int>(index), rank.process.pid,
                     says_why(rank.end) ? RankState::ended : RankState::gave_up);
}

void Supervisor::end_when_due(int64_t now) {
  if (!end_at_ms_ || now < *end_at_ms_ || alive_ == 0) return;
  if (terminated_) {
    end_at_ms_.reset();
    send_all(SIGKILL);
    return;
  }
  terminated_ = true;
  end_at_ms_ = now + kTerminateMs;
  note_who_waits(now);
  for (Rank& rank : ranks_) {
    if (!rank.alive) continue;
    rank.end.by_launcher = true;
    // A stopped one would have to continue for SIGTERM, and tell of a job that is over.
    send(rank.process.pid, rank.stopped != 0 ? SIGKILL : SIGTERM);
  }
}

// Before the launcher ends ranks itself: who is in trouble shows as long as nobody has to leave.
void Supervisor::note_who_waits(int64_t now) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (!ranks_[i].alive) note_ended(i);  // its error may have come out after its end was seen
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    const RankStatus status = board_.status(static_cast<int>(i));
    rank.end.place = place(status);
    if (rank.stopped != 0) {
      rank.end.lifeless = "stopped by " + signal_name(rank.stopped);
    } else if (rank.alive && !shows_life(status, now)) {
      rank.end.lifeless =
          fmt::format("without a sign of life for {:.0f} s", static_cast<double>(now - status.beat_ms) / 1e3);
    }
    if (status.waits_for == 0) continue;
    rank.end.waited_in = collective(status);
    rank.end.missing = missing_ranks(board_, status.waits_for);
  }
}

void Supervisor::note_stopped(size_t index, int signal) {
  Rank& rank = ranks_[index];
  rank.stopped = signal;
  board_.set_process(static_cast<int>(index), rank.process.pid, RankState::stopped);
  const std::string collective = waited_for_in(index);
  stderr_.write(fmt::format("dsv3: warning: rank {} is stopped ({}); the others {}\n", index,
                            signal_name(signal),
                            collective.empty() ? "will wait for it" : "wait for it in " + collective));
}

void Supervisor::note_continued(size_t index) {
  Rank& rank = ranks_[index];
  if (rank.stopped == 0) return;
  rank.stopped = 0;
  refresh_beat(index);
  board_.set_process(static_cast<int>(index), rank.process.pid, RankState::running);
  stderr_.write(fmt::format("dsv3: warning: rank {} continues\n", index));
}

// The beat of a rank that was stopped is old and no news. One that never beat is still starting.
void Supervisor::refresh_beat(size_t index) {
  const int rank = static_cast<int>(index);
  if (board_.status(rank).beat_ms != 0) board_.beat(rank);
}

void Supervisor::name_silent(int64_t now) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    if (!rank.alive || rank.stopped != 0) continue;
    const RankStatus status = board_.status(static_cast<int>(i));
    if (shows_life(status, now)) {
      rank.named_silent = false;
      continue;
    }
    const std::string collective = rank.named_silent ? std::string() : waited_for_in(i);
    if (collective.empty()) continue;
    rank.named_silent = true;
    stderr_.write(fmt::format(
        "dsv3: warning: rank {} shows no sign of life for {:.1f} s; the others wait for it in {}\n", i,
        static_cast<double>(now - status.beat_ms) / 1e3, collective));
  }
}

// The collective in which another rank needs this one, in words; empty when there is none.
std::string Supervisor::waited_for_in(size_t index) const {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const RankStatus status = board_.status(static_cast<int>(i));
    if (i == index || !ranks_[i].alive || status.waits_for == 0) continue;
    const std::vector<int> missing = missing_ranks(board_, status.waits_for);
    if (std::find(missing.begin(), missing.end(), static_cast<int>(index)) != missing.end())
      return collective(status);
  }
  return {};
}

}  // namespace dsv3
