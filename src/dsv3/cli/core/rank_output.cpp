#include "dsv3/cli/core/rank_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

namespace dsv3 {

void Outlet::write(std::string_view text) {
  if (error_ == 0) text_ += text;
}

void Outlet::flush_some() {
  // A pipe that takes anything takes PIPE_BUF bytes. The handlers have no SA_RESTART: a terminal that takes
  // fewer (Ctrl-S) blocks until the next signal.
  const ssize_t n = ::write(fd_, text_.data() + sent_, std::min<size_t>(text_.size() - sent_, PIPE_BUF));
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n < 0) error_ = errno;
  sent_ += static_cast<size_t>(std::max<ssize_t>(n, 0));
  if (n >= 0 && sent_ < text_.size() && sent_ < kFull) return;
  text_.erase(0, n < 0 ? text_.size() : sent_);
  sent_ = 0;
}

RankLines::RankLines(int rank, bool is_stderr, Outlet& to)
    : prefix_(fmt::format("[rank {}] ", rank)), is_stderr_(is_stderr), to_(&to) {}

void RankLines::take(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t room = kLongest - unfinished_.size();
    const size_t newline = bytes.substr(0, room).find('\n');
    const size_t used = newline != bytes.npos ? newline : std::min(room, bytes.size());
    unfinished_ += bytes.substr(0, used);
    bytes.remove_prefix(newline != bytes.npos ? used + 1 : used);
    if (newline != bytes.npos || unfinished_.size() == kLongest) line(std::exchange(unfinished_, {}));
  }
}

void RankLines::finish() {
  if (!unfinished_.empty()) line(std::exchange(unfinished_, {}));
}

void RankLines::line(std::string_view text) {
  if (is_stderr_) {
    if (!text.empty()) last_lines_.emplace_back(text.substr(0, kKeptBytes));
    if (last_lines_.size() > kKeptLines) last_lines_.pop_front();
    if (text.starts_with("dsv3: error: ")) {
      const std::string older = std::exchange(error_, std::string(text));
      if (!older.empty()) to_->write(prefix_ + older + "\n");
      return;
    }
  }
  to_->write(fmt::format("{}{}\n", prefix_, text));
}

}  // namespace dsv3
