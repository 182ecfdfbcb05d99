#include "dsv3/comm/group.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/philox.h"

namespace dsv3 {
namespace {

int64_t bytes_of(const at::Tensor& x) { return x.numel() * static_cast<int64_t>(x.element_size()); }

using Kind = EventKind;

}  // namespace

Work& Work::operator=(Work&& other) noexcept {
  if (this == &other) return *this;
  drop();
  pending_ = std::move(other.pending_);
  held_ = std::move(other.held_);
  group_ = other.group_;
  operation_ = other.operation_;
  unit_ = std::move(other.unit_);
  sequence_ = other.sequence_;
  return *this;
}

void Work::drop() noexcept {
  if (!pending_) return;
  try {
    std::exchange(pending_, nullptr)->wait();
  } catch (...) {  // the error of the call that made this one pointless is on its way already
  }
}

void Work::tell(Kind kind) const {
  const CollectiveLog& log = *group_->log_;
  if (log.observer) log.observer({kind, group_->name_, operation_, unit_, sequence_});
}

void Work::wait() {
  if (!pending_) return;
  tell(Kind::wait);
  const auto begin = std::chrono::steady_clock::now();
  const std::unique_ptr<Pending> pending = std::move(pending_);
  try {
    pending->wait();
  } catch (const std::exception& error) {
    const CollectiveLog& log = *group_->log_;
    const std::string missing = log.missing ? log.missing(sequence_) : "";
    throw RunError("rank " + std::to_string(log.rank),
                   std::string(operation_) + " of " + unit_ + " in group " + group_->name_ + " failed: " +
                       (missing.empty() ? "" : "missing " + missing + ": ") + transport_error(error));
  }
  held_.clear();
  group_->counters_.wait_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  tell(Kind::done);
}

Group::Group(std::string name, std::shared_ptr<Transport> transport, std::shared_ptr<CollectiveLog> log)
    : name_(std::move(name)), transport_(std::move(transport)), log_(std::move(log)) {}

// agreed: a size on which the ranks agree, part of the order's hash.
template <class Start>
Work Group::start(const char* operation, std::string_view unit, const at::Tensor& payload, int64_t agreed,
                  std::vector<at::Tensor> held, Start start) {
  Work work;
  work.group_ = this;
  work.operation_ = operation;
  work.unit_ = unit;
  work.held_ = std::move(held);
  if (size() > 1) {
    ++counters_.calls;
    counters_.bytes += bytes_of(payload);
    work.sequence_ = ++log_->issued;
    log_->order_hash = hash_name(std::to_string(log_->order_hash) + '|' + name_ + '|' + operation + '|' +
                                 work.unit_ + '|' + std::to_string(agreed));
    if (log_->observer) log_->observer({Kind::issue, name_, operation, work.unit_, work.sequence_});
  }
  at::NoGradGuard no_grad;
  work.pending_ = start();
  if (size() == 1) std::exchange(work.pending_, nullptr)->wait();  // a copy, and done
  return work;
}

Work Group::all_gather(const at::Tensor& out, const at::Tensor& in, std::string_view unit) {
  return start("all_gather", unit, out, out.numel(), {out, in},
               [&] { return transport_->all_gather(out, in); });
}

Work Group::reduce_scatter(const at::Tensor& out, const at::Tensor& in, std::string_view unit) {
  return start("reduce_scatter", unit, in, in.numel(), {out, in},
               [&] { return transport_->reduce_scatter(out, in); });
}

Work Group::all_reduce(const at::Tensor& x, std::string_view unit) {
  return start("all_reduce", unit, x, x.numel(), {x}, [&] { return transport_->all_reduce(x); });
}

Work Group::broadcast(const at::Tensor& x, int root, std::string_view unit) {
  return start("broadcast", unit, x, x.numel(), {x}, [&] { return transport_->broadcast(x, root); });
}

Work Group::all_to_all(const at::Tensor& out, const at::Tensor& in, const SlotRows& recv,
                       const SlotRows& send, std::string_view unit) {
  // Rows differ from rank to rank; slots don't.
  return start("all_to_all", unit, in, static_cast<int64_t>(send.size()), {out, in},
               [&] { return transport_->all_to_all(out, in, recv, send); });
}

}  // namespace dsv3
