#pragma once
// Ranks as threads of one process, over a transport in memory that keeps no tensor alive: memory that is
// given up under way is an error. It can be slow (a delay a collective) and hostile: a result is NaN until it
// arrives, at its own wait or in a random order at an earlier one, and neither inputs nor outputs may change
// until they are waited for.

#include <gtest/gtest.h>
#include <omp.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "dsv3/comm/mesh.h"
#include "support/borrowed.h"

namespace dsv3::test {

// One network for all groups: a collective at a time.
struct Channel {
  std::mutex mutex;
  std::chrono::steady_clock::time_point busy_until;
};

struct RankOptions {
  double delay_ms = 0;  // that the channel is busy with each collective
  bool chaos = false;
  bool replicas_innermost = false;  // neighbours are replicas, as groups of a program's own may have it
  std::shared_ptr<Channel> channel = std::make_shared<Channel>();
};

// One group of thread ranks. Each collective is kept until every rank has taken its result.
class Hub {
 public:
  Hub(int size, const RankOptions& options) : size_(size), options_(options), next_(size, 0) {}

  struct Call {
    std::vector<at::Tensor> inputs;  // copies, by rank
    std::vector<SlotRows> send;
    int joined = 0, taken = 0;
    std::chrono::steady_clock::time_point ready;
  };

  // Joins this rank's next collective; returns its number.
  uint64_t join(int rank, const at::Tensor& input, const SlotRows& send) {
    std::lock_guard lock(mutex_);
    const uint64_t number = next_[rank]++;
    Call& call = calls_[number];
    call.inputs.resize(size_);
    call.send.resize(size_);
    call.inputs[rank] = input.clone();
    call.send[rank] = send;
    if (++call.joined == size_) {
      std::lock_guard channel(options_.channel->mutex);
      auto& busy_until = options_.channel->busy_until;
      busy_until = std::max(busy_until, std::chrono::steady_clock::now()) +
                   std::chrono::microseconds(static_cast<int64_t>(options_.delay_ms * 1000));
      call.ready = busy_until;
    }
    changed_.notify_all();
    return number;
  }

  // Waits for all ranks, then hands the call to fn.
  void take(uint64_t number, const std::function<void(const Call&)>& fn) {
    std::unique_lock lock(mutex_);
    Call& call = calls_[number];
    while (call.joined < size_ && !failed_) changed_.wait(lock);
    if (call.joined < size_) throw std::runtime_error("another rank has failed");
    lock.unlock();
    std::this_thread::sleep_until(call.ready);
    fn(call);
    lock.lock();
    if (++call.taken == size_) calls_.erase(number);
  }

  // Whether take() would not wait for another rank.
  bool is_complete(uint64_t number) {
    std::lock_guard lock(mutex_);
    return calls_[number].joined == size_;
  }

  void fail() {
    std::lock_guard lock(mutex_);
    failed_ = true;
    changed_.notify_all();
  }

  int size() const { return size_; }
  const RankOptions& options() const { return options_; }

 private:
  int size_;
  RankOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> next_;
  std::map<uint64_t, Call> calls_;
  bool failed_ = false;
};

// A rank's collective under way.
class HubPending : public Pending {
 public:
  // What a rank has under way in all of its groups, and the dice that say what arrives when.
  struct Outstanding {
    std::vector<HubPending*> calls;
    std::minstd_rand dice;
  };

  // Writes the result of a call.
  using Finish = std::function<void(const Hub::Call&, const at::Tensor& out)>;

  HubPending(std::shared_ptr<Hub> hub, uint64_t number, Finish finish, const at::Tensor& out,
             const at::Tensor& in, std::shared_ptr<Outstanding> outstanding)
      : hub_(std::move(hub)),
        number_(number),
        finish_(std::move(finish)),
        out_(out),
        in_(in),
        outstanding_(std::move(outstanding)) {
    outstanding_->calls.push_back(this);
    if (!hub_->options().chaos) return;
    if (!out.is_alias_of(in)) in_.watch();
    out.is_floating_point() ? out.fill_(std::numeric_limits<double>::quiet_NaN()) : out.fill_(-77);
    out_.watch();
  }
  ~HubPending() override { std::erase(outstanding_->calls, this); }

  void wait() override {
    at::NoGradGuard no_grad;
    if (hub_->options().chaos) let_some_arrive();
    arrive();
    in_.check();
    out_.check();
  }

 private:
  void arrive() {
    if (std::exchange(arrived_, true)) return;
    hub_->take(number_, [this](const Hub::Call& call) {
      in_.check();
      out_.check();
      finish_(call, out_.get());
      if (hub_->options().chaos) out_.watch();
    });
  }
  void let_some_arrive() {
    std::vector<HubPending*> order = outstanding_->calls;
    std::shuffle(order.begin(), order.end(), outstanding_->dice);
    for (HubPending* other : order)
      if (outstanding_->dice() % 2 == 0 && (other->arrived_ || other->hub_->is_complete(other->number_)))
        other->arrive();
  }

  std::shared_ptr<Hub> hub_;
  uint64_t number_;
  Finish finish_;
  Borrowed out_, in_;
  std::shared_ptr<Outstanding> outstanding_;
  bool arrived_ = false;
};

class HubTransport : public Transport {
 public:
  HubTransport(
      std::shared_ptr<Hub> hub, int rank,
      std::shared_ptr<HubPending::Outstanding> outstanding = std::make_shared<HubPending::Outstanding>())
      : hub_(std::move(hub)), rank_(rank), outstanding_(std::move(outstanding)) {}
  int rank() const override { return rank_; }
  int size() const override { return hub_->size(); }

  std::unique_ptr<Pending> all_gather(const at::Tensor& out, const at::Tensor& in) override {
    return start(out, in, {},
                 [](const Hub::Call& call, const at::Tensor& result) { result.copy_(at::cat(call.inputs)); });
  }
  std::unique_ptr<Pending> reduce_scatter(const at::Tensor& out, const at::Tensor& in) override {
    const int64_t size = out.numel(), begin = size * rank_;
    return start(out, in, {}, [=](const Hub::Call& call, const at::Tensor& result) {
      result.copy_(call.inputs[0].narrow(0, begin, size));
      for (size_t r = 1; r < call.inputs.size(); ++r) result.add_(call.inputs[r].narrow(0, begin, size));
    });
  }
  std::unique_ptr<Pending> all_reduce(const at::Tensor& x) override {
    return start(x, x, {}, [](const Hub::Call& call, const at::Tensor& result) {
      result.copy_(call.inputs[0]);
      for (size_t r = 1; r < call.inputs.size(); ++r) result.add_(call.inputs[r]);
    });
  }
  std::unique_ptr<Pending> broadcast(const at::Tensor& x, int root) override {
    return start(x, x, {}, [root](const Hub::Call& call, const at::Tensor& result) {
      result.copy_(call.inputs[root]);
    });
  }
  std::unique_ptr<Pending> all_to_all(const at::Tensor& out, const at::Tensor& in, const SlotRows& recv,
                                      const SlotRows& send) override {
    return start(out, in, send, [this, recv](const Hub::Call& call, const at::Tensor& result) {
      const auto peers = static_cast<size_t>(size());
      std::vector<int64_t> read(peers, 0);  // rows of each peer's input passed
      int64_t written = 0;
      for (size_t slot = 0; slot < recv.size(); slot += peers)
        for (size_t peer = 0; peer < peers; ++peer)
          for (size_t to = 0; to < peers; ++to) {
            const int64_t rows = call.send[peer][slot + to];
            if (static_cast<int>(to) == rank_) {
              if (rows != recv[slot + peer]) throw std::logic_error("send and recv do not match");
              result.narrow(0, written, rows).copy_(call.inputs[peer].narrow(0, read[peer], rows));
              written += rows;
            }
            read[peer] += rows;
          }
    });
  }

 private:
  std::unique_ptr<Pending> start(const at::Tensor& out, const at::Tensor& in, const SlotRows& send,
                                 HubPending::Finish finish) {
    const uint64_t number = hub_->join(rank_, in, send);
    return std::make_unique<HubPending>(hub_, number, std::move(finish), out, in, outstanding_);
  }

  std::shared_ptr<Hub> hub_;
  int rank_;
  std::shared_ptr<HubPending::Outstanding> outstanding_;
};

// Runs fn(mesh) on every rank of the layout at once; the first exception of a rank is thrown here.
inline void run_ranks(const MeshLayout& layout, const std::function<void(const Mesh&)>& fn,
                      const RankOptions& options = {}) {
  const auto world = static_cast<int>(layout.world());
  std::map<std::pair<std::string, int>, std::shared_ptr<Hub>> hubs;
  std::vector<Transports> transports(world);
  for (int rank = 0; rank < world; ++rank) {
    const int64_t as =
        options.replicas_innermost ? rank % layout.replicate * layout.shard + rank / layout.replicate : rank;
    auto outstanding = std::make_shared<HubPending::Outstanding>();
    outstanding->dice.seed(static_cast<unsigned>(rank + 1));
    auto transport = [&](const char* name, const std::vector<int>& ranks,
                         int64_t self) -> std::shared_ptr<Transport> {
      if (ranks.size() == 1) return single_transport();
      auto& hub = hubs[{name, ranks.front()}];
      if (!hub) hub = std::make_shared<Hub>(static_cast<int>(ranks.size()), options);
      const auto place = std::find(ranks.begin(), ranks.end(), self) - ranks.begin();
      return std::make_shared<HubTransport>(hub, static_cast<int>(place), outstanding);
    };
    std::vector<int> everyone(world);
    for (int r = 0; r < world; ++r) everyone[r] = r;
    transports[rank] = {.world = transport("world", everyone, rank),
                        .data = transport("data", layout.data_ranks(as), as),
                        .replicate = transport("replicate", layout.replicate_ranks(as), as),
                        .expert = transport("expert", layout.expert_ranks(as), as),
                        .expert_data = transport("expert_data", layout.expert_data_ranks(as), as)};
  }
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank)
    threads.emplace_back([&, rank] {
      omp_set_num_threads(1);
      try {
        fn(Mesh::from_transports(transports[rank]));
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        for (auto& [key, hub] : hubs) hub->fail();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace dsv3::test
