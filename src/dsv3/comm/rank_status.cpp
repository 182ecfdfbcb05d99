#include "dsv3/comm/rank_status.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "dsv3/base/rank_board.h"

namespace dsv3 {
namespace {

class Status {
 public:
  Status(const std::string& path, int rank) : board_(RankBoard::open(path)), rank_(rank) {
    heart_ = std::thread([this] {
      std::unique_lock lock(mutex_);
      while (!stop_) {
        board_.beat(rank_);
        stopped_.wait_for(lock, std::chrono::milliseconds(kHeartbeatMs));
      }
    });
  }
  ~Status() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    stopped_.notify_all();
    heart_.join();
    // Groups that failed take seconds to close: until the process ends this rank is not silent.
    board_.farewell(rank_);
  }

  void observe(const CollectiveLog::Event& event) {
    using Kind = CollectiveLog::Event::Kind;
    if (event.kind == Kind::issue) board_.enter(rank_, event.operation, event.unit);
    if (event.kind == Kind::wait) board_.wait(rank_, event.sequence, event.operation, event.unit);
    if (event.kind == Kind::done) board_.leave(rank_, event.sequence);
    if (event.kind == Kind::phase) board_.phase(rank_, event.operation);
  }
  std::string missing(uint64_t sequence) const { return missing_in_words(board_, sequence); }

 private:
  RankBoard board_;
  int rank_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread heart_;
};

}  // namespace

void publish_status(CollectiveLog& log, const std::string& path) {
  auto status = std::make_shared<Status>(path, log.rank);
  log.observer = [status](const CollectiveLog::Event& event) { status->observe(event); };
  log.missing = [status](uint64_t sequence) { return status->missing(sequence); };
}

}  // namespace dsv3
