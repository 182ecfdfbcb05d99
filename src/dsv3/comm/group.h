#pragma once
// The ranks that take part in a collective, and the collectives. Only Step, or a block's forward and backward
// on the calling thread, issues them, in the same order on every rank.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "dsv3/comm/buffer_pool.h"
#include "dsv3/comm/transport.h"

namespace dsv3 {

// What one group moved since the mesh was made. Bytes are payload: the whole buffer of a call on this rank
// (all-gather's output, reduce-scatter's input, what an all-to-all sends, its own rows included).
struct GroupCounters {
  int64_t calls = 0, bytes = 0;
  double wait_s = 0;  // in Work::wait
};

enum class EventKind { issue, wait, done, phase };
struct CollectiveLog;
class Group;

// A collective under way. The call's tensors belong to it until wait() has returned.
class Work {
 public:
  Work() = default;  // nothing under way
  Work(Work&&) noexcept = default;
  // A collective that was never waited for is waited for here, and its error dropped.
  Work& operator=(Work&& other) noexcept;
  ~Work() { drop(); }

  // RunError naming the operation, the unit, the group and who is missing. Nothing to do the second time.
  void wait();
  explicit operator bool() const { return pending_ != nullptr; }

 private:
  friend class Group;
  void drop() noexcept;
  void tell(EventKind kind) const;

  std::unique_ptr<Pending> pending_;
  std::vector<at::Tensor> held_;  // what the transport reads and writes
  Group* group_ = nullptr;
  const char* operation_ = "";
  std::string unit_;
  uint64_t sequence_ = 0;
};

// unit: what the collective is for ("block 3"), for errors, logs and the hash of the order.
class Group {
 public:
  Group(std::string name, std::shared_ptr<Transport> transport, std::shared_ptr<CollectiveLog> log);
  Group(const Group&) = delete;

  const std::string& name() const { return name_; }
  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }

  // Shapes as in Transport. Nothing is sent, counted or logged in a group of one, except that all_gather,
  // reduce_scatter and all_to_all copy.
  Work all_gather(const at::Tensor& out, const at::Tensor& in, std::string_view unit);
  Work reduce_scatter(const at::Tensor& out, const at::Tensor& in, std::string_view unit);
  Work all_reduce(const at::Tensor& x, std::string_view unit);
  Work broadcast(const at::Tensor& x, int root, std::string_view unit);
  Work all_to_all(const at::Tensor& out, const at::Tensor& in, const SlotRows& recv, const SlotRows& send,
                  std::string_view unit);

  const GroupCounters& counters() const { return counters_; }
  // Where the flat buffers of this group's collectives come from.
  BufferPool& buffers() { return buffers_; }

 private:
  friend class Work;
  template <class Start>
  Work start(const char* operation, std::string_view unit, const at::Tensor& payload, int64_t agreed,
             std::vector<at::Tensor> held, Start start);

  std::string name_;
  std::shared_ptr<Transport> transport_;
  std::shared_ptr<CollectiveLog> log_;
  GroupCounters counters_;
  BufferPool buffers_;
};

// What all groups of one mesh share: the order in which this rank issued collectives, and who is told.
struct CollectiveLog {
  uint64_t order_hash = 0;  // over (group, operation, unit, agreed size) since the mesh was made
  uint64_t issued = 0;
  int rank = 0;  // of the world, for messages

  // For tests and for the status board of a run; called on the issuing thread.
  struct Event {
    using Kind = EventKind;
    Kind kind;
    // A phase has its name as operation: "forward".
    std::string_view group, operation, unit;
    uint64_t sequence;
  };
  std::function<void(const Event&)> observer;
  // Says who has not joined collective `sequence`, after it failed; empty when that is not known.
  std::function<std::string(uint64_t sequence)> missing;
};

}  // namespace dsv3
