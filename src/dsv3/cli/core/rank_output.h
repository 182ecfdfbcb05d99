#pragma once
// What ranks print: lines with a prefix, errors kept for the end, the last lines remembered.

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

namespace dsv3 {

// The launcher's stdout or stderr. Text waits here until poll says that the descriptor takes some, so that a
// reader that does not read never keeps the launcher from its signals.
class Outlet {
 public:
  explicit Outlet(int fd) : fd_(fd) {}
  void write(std::string_view text);
  int fd() const { return fd_; }
  bool waiting() const { return sent_ < text_.size(); }
  // So much waits that no more should be read from the ranks.
  bool full() const { return text_.size() - sent_ >= kFull; }
  // To be called when poll says POLLOUT (or an error, which it then remembers). Writes what does not block.
  void flush_some();
  int error() const { return error_; }  // errno of a write that failed; all text is dropped from then on

 private:
  static constexpr size_t kFull = 1 << 18;
  int fd_;
  int error_ = 0;
  std::string text_;
  size_t sent_ = 0;  // of text_
};

// One stream of one rank, cut into lines that go out as "[rank R] LINE". A line longer than kLongest goes out
// in pieces, each a line. A line of stderr that starts with "dsv3: error: " is kept back: whether it is one
// rank's or everybody's shows at the end.
class RankLines {
 public:
  static constexpr size_t kLongest = 16'384;
  static constexpr size_t kKeptLines = 20, kKeptBytes = 400;

  RankLines(int rank, bool is_stderr, Outlet& to);
  void take(std::string_view bytes);
  // The stream has ended: what waits for its newline is a line.
  void finish();

  // The newest error line, without a newline; "" when there is none. An older one has gone out like other
  // lines.
  const std::string& error() const { return error_; }
  // The last lines of stderr that are not empty, the error's too, each cut to kKeptBytes.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  void line(std::string_view text);

  std::string prefix_;
  bool is_stderr_;
  Outlet* to_;
  std::string unfinished_, error_;
  std::deque<std::string> last_lines_;
};

}  // namespace dsv3
