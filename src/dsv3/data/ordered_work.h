#pragma once
// Work done by several threads, its results used in the order of the jobs by the thread that adds them.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace dsv3 {

// What comes out is the same for any number of threads: only use() sees the results, in order.
template <class Job>
class OrderedWork {
 public:
  // work changes a job in place, on any of the threads (at least 1), with what make_worker returns for each
  // of them; use gets it afterwards. Jobs of more than max_weight together are not held at once, unless it is
  // one.
  using Work = std::function<void(Job&)>;
  OrderedWork(int threads, uint64_t max_weight, const std::function<Work()>& make_worker, Work use)
      : most_jobs_(4 * static_cast<size_t>(threads)), max_weight_(max_weight), use_(std::move(use)) {
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back([this, work = make_worker()] { run(work); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~OrderedWork() { stop(); }
  OrderedWork(const OrderedWork&) = delete;
  OrderedWork& operator=(const OrderedWork&) = delete;

  // Waits while too much is held. Throws what work or use of an earlier job threw.
  void add(Job job, uint64_t weight) {
    while (!entries_.empty() && (entries_.size() >= most_jobs_ || weight_ + weight > max_weight_))
      use_first();
    auto entry = std::make_unique<Entry>();
    entry->job = std::move(job);
    entry->weight = weight;
    weight_ += weight;
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(entry.get());
    }
    entries_.push_back(std::move(entry));
    added_.notify_one();
  }

  // Until everything that was added is used. Throws as add(), also what it has thrown before.
  void finish() {
    while (!entries_.empty()) use_first();
  }

 private:
  struct Entry {
    Job job;
    uint64_t weight = 0;
    bool done = false;  // under mutex_
    std::exception_ptr error;
  };

  void use_first() {
    if (failure_) std::rethrow_exception(failure_);  // neither this job again nor those behind it
    Entry& first = *entries_.front();
    {
      std::unique_lock lock(mutex_);
      done_.wait(lock, [&] { return first.done; });
    }
    try {
      if (first.error) std::rethrow_exception(first.error);
      use_(first.job);
    } catch (...) {
      failure_ = std::current_exception();
      throw;
    }
    weight_ -= first.weight;
    entries_.pop_front();
  }

  void run(const Work& work) {
    std::unique_lock lock(mutex_);
    while (true) {
      added_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      Entry& entry = *waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      try {
        work(entry.job);
      } catch (...) {
        entry.error = std::current_exception();
      }
      lock.lock();
      entry.done = true;
      done_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    added_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  const size_t most_jobs_;
  const uint64_t max_weight_;
  const Work use_;
  std::deque<std::unique_ptr<Entry>> entries_;  // in order; the adding thread alone
  uint64_t weight_ = 0;
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable added_, done_;
  std::deque<Entry*> waiting_;  // under mutex_
  bool stopping_ = false;       // under mutex_
  std::vector<std::thread> threads_;
};

}  // namespace dsv3
