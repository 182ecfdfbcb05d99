// Stands for the engine in the launcher's tests. Obeys FAKE_R (rank R), else FAKE: steps "NAME" or
// "NAME:VALUE" between semicolons.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dsv3/base/rank_board.h"

namespace {

std::atomic<int> g_signals[NSIG];

void count_signal(int signal) { ++g_signals[signal]; }

void put(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n <= 0) ::_exit(99);
    text.remove_prefix(static_cast<size_t>(n));
  }
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool newline = text.substr(i, 2) == "\\n";
    out += newline ? '\n' : text[i];
    i += newline;
  }
  return out;
}

class Rank {
 public:
  Rank(int argc, char** argv) : args_(argv + 1, argv + argc) {
    const std::string rank = environment("RANK");
    rank_ = rank.empty() ? 0 : std::stoi(rank);
    folder_ = environment("DSV3_RUN_FOLDER");
  }

  void obey(const std::string& name, const std::string& value) {
    const auto number = [&] { return std::stoi(value); };
    if (name == "out") put(1, unescaped(value));
    if (name == "err") put(2, unescaped(value));
    if (name == "many") put(2, std::string(static_cast<size_t>(number()), 'x'));  // that many, no newline
    if (name == "letters") {  // to stdout: that many, a to z again and again
      std::string text;
      for (int i = 0; i < number(); ++i) text += static_cast<char>('a' + i % 26);
      put(1, text);
    }
    if (name == "args") {
      for (const std::string& arg : args_) put(1, "<" + arg + ">");
    }
    if (name == "env") put(1, value + "=" + environment(value.c_str()) + "\n");
    if (name == "stdin") put(1, std::filesystem::read_symlink("/proc/self/fd/0").string() + "\n");
    if (name == "mask") {  // what a program inherits of signals
      struct sigaction pipe = {};
      sigset_t blocked;
      ::sigaction(SIGPIPE, nullptr, &pipe);
      ::sigprocmask(SIG_BLOCK, nullptr, &blocked);
      put(1, std::string("SIGPIPE ") + (pipe.sa_handler == SIG_DFL ? "default" : "ignored") + ", SIGTERM " +
                 (::sigismember(&blocked, SIGTERM) ? "blocked" : "open") + "\n");
    }
    if (name == "helper" && ::fork() == 0) {  // keeps the pipes open until the job is over, or half a minute
      for (int i = 0; i < 300 && std::filesystem::exists(folder_); ++i) sleep_ms(100);
      ::_exit(0);
    }
    if (name == "exit") ::_exit(number());
    if (name == "raise") {
      ::signal(number(), SIG_DFL);
      ::raise(number());
    }
    if (name == "sleep") sleep_ms(number());
    if (name == "forever") {
      while (true) sleep_ms(1000);
    }
    if (name == "ignore") ::signal(number(), SIG_IGN);
    if (name == "count") ::signal(number(), count_signal);
    if (name == "await") {
      while (g_signals[number()] == 0) sleep_ms(5);
    }
    if (name == "tell") put(1, "signals: " + std::to_string(g_signals[number()]) + "\n");
    if (name == "close") ::close(number());
    // Meeting the test and the other ranks in the private folder.
    if (name == "touch") ::close(::open((folder_ / value).c_str(), O_WRONLY | O_CREAT, 0600));
    if (name == "wait") {
      while (!std::filesystem::exists(folder_ / value)) sleep_ms(5);
    }
    if (name == "phase") board().phase(rank_, value);
    if (name == "issue" || name == "enter") {  // enter: and wait for it
      const std::string operation = value.substr(0, value.find(',')),
                        unit = value.substr(value.find(',') + 1);
      const uint64_t sequence = board().enter(rank_, operation, unit);
      if (name == "enter") board().wait(rank_, sequence, operation, unit);
    }
    if (name == "leave") board().leave(rank_, std::stoull(value));
    if (name == "beat") board().beat(rank_);
    if (name == "farewell") board().farewell(rank_);
    if (name == "beats") {  // from now on
      board();
      std::thread([this] {
        while (true) board_->beat(rank_), sleep_ms(100);
      }).detach();
    }
  }

  int rank() const { return rank_; }

 private:
  dsv3::RankBoard& board() {
    if (!board_) board_ = std::make_unique<dsv3::RankBoard>(dsv3::RankBoard::open(folder_ / "board"));
    return *board_;
  }

  std::vector<std::string> args_;
  std::filesystem::path folder_;
  int rank_ = 0;
  std::unique_ptr<dsv3::RankBoard> board_;
};

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGSEGV, SIG_DFL);  // AddressSanitizer's own handler exits instead of dying by it
  Rank rank(argc, argv);
  const char* own = std::getenv(("FAKE_" + std::to_string(rank.rank())).c_str());
  const std::string steps = own ? own : environment("FAKE");
  for (size_t begin = 0; begin < steps.size();) {
    const size_t end = std::min(steps.find(';', begin), steps.size());
    const std::string step = steps.substr(begin, end - begin);
    const size_t colon = step.find(':');
    rank.obey(step.substr(0, colon), colon == step.npos ? "" : step.substr(colon + 1));
    begin = end + 1;
  }
  ::_exit(0);  // while the thread of "beats" still uses the board
}
