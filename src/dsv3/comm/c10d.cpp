#include "dsv3/comm/c10d.h"

#include <ATen/ATen.h>

#include <numeric>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "dsv3/base/error.h"
#include "dsv3/comm/buffer_pool.h"
#include "dsv3/comm/silent_ranks.h"

namespace dsv3 {
namespace {

using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

class C10dPending : public Pending {
 public:
  // staging: what is read while the work is under way, beside the call's own tensors.
  explicit C10dPending(Works works, at::Tensor staging = {})
      : works_(std::move(works)), staging_(std::move(staging)) {}
  void wait() override {
    for (const auto& work : works_) work->wait();
  }

 private:
  Works works_;
  at::Tensor staging_;
};

// [Note: reduce-scatter by all-to-all] Gloo's own reduce-scatter is a whole all-reduce. Parts are exchanged
// and summed here instead: half the bytes, and always in the order of ranks.
class SumPending : public Pending {
 public:
  SumPending(c10::intrusive_ptr<c10d::Work> work, at::Tensor parts, at::Tensor out)
      : work_(std::move(work)), parts_(std::move(parts)), out_(std::move(out)) {}
  void wait() override {
    work_->wait();
    at::NoGradGuard no_grad;
    out_.copy_(parts_[0]);
    for (int64_t rank = 1; rank < parts_.size(0); ++rank) out_.add_(parts_[rank]);
  }

 private:
  c10::intrusive_ptr<c10d::Work> work_;
  at::Tensor parts_, out_;
};

class C10dTransport : public Transport {
 public:
  explicit C10dTransport(c10::intrusive_ptr<c10d::Backend> backend) : backend_(std::move(backend)) {}
  int rank() const override { return backend_->getRank(); }
  int size() const override { return backend_->getSize(); }

  std::unique_ptr<Pending> all_gather(const at::Tensor& out, const at::Tensor& in) override {
    at::Tensor output = out, input = in;
    if (!in.is_cpu()) return pending({backend_->_allgather_base(output, input)});
    // Gloo gathers into memory of its own, from malloc, on a thread of its own, and copies; an all-to-all of
    // copies moves as many bytes through memory that is used again (see BufferPool).
    at::NoGradGuard no_grad;
    at::Tensor copies = buffers_.empty(out.numel(), in.options());
    copies.view({size(), in.numel()}).copy_(in.view({1, in.numel()}).expand({size(), in.numel()}));
    return std::make_unique<C10dPending>(Works{exchange(output, copies, {}, {})}, copies);
  }

  std::unique_ptr<Pending> reduce_scatter(const at::Tensor& out, const at::Tensor& in) override {
    at::Tensor output = out, input = in;
    if (!in.is_cpu()) return pending({backend_->_reduce_scatter_base(output, input)});
    // See [Note: reduce-scatter by all-to-all].
    at::Tensor parts = buffers_.empty(in.numel(), in.options()).view({size(), out.numel()});
    at::Tensor rows = in.view({size(), out.numel()});
    return std::make_unique<SumPending>(exchange(parts, rows, {}, {}), parts, out);
  }

  std::unique_ptr<Pending> all_reduce(const at::Tensor& x) override {
    std::vector<at::Tensor> tensors{x};
    return pending({backend_->allreduce(tensors)});
  }

  std::unique_ptr<Pending> broadcast(const at::Tensor& x, int root) override {
    std::vector<at::Tensor> tensors{x};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return pending({backend_->broadcast(tensors, options)});
  }

  std::unique_ptr<Pending> all_to_all(const at::Tensor& out, const at::Tensor& in, const SlotRows& recv,
                                      const SlotRows& send) override {
    const auto peers = static_cast<size_t>(size());
    const bool coalesce = in.is_cuda() && backend_->supportsCoalescing();
    if (coalesce) backend_->startCoalescing();
    Works works;
    int64_t read = 0, written = 0;
    for (size_t slot = 0; slot < send.size(); slot += peers) {
      const std::vector<int64_t> sent(&send[slot], &send[slot] + peers),
          got(&recv[slot], &recv[slot] + peers);
      const int64_t rows_in = std::accumulate(sent.begin(), sent.end(), int64_t{0});
      const int64_t rows_out = std::accumulate(got.begin(), got.end(), int64_t{0});
      at::Tensor output = out.narrow(0, written, rows_out), input = in.narrow(0, read, rows_in);
      works.push_back(exchange(output, input, got, sent));
      read += rows_in;
      written += rows_out;
    }
    if (coalesce) works = {backend_->endCoalescing()};
    return pending(std::move(works));
  }

 private:
  c10::intrusive_ptr<c10d::Work> exchange(at::Tensor& out, at::Tensor& in, std::vector<int64_t> got,
                                          std::vector<int64_t> sent) {
    return backend_->alltoall_base(out, in, got, sent);
  }
  static std::unique_ptr<Pending> pending(Works works) {
    return std::make_unique<C10dPending>(std::move(works));
  }

  c10::intrusive_ptr<c10d::Backend> backend_;
  BufferPool buffers_;
};

}  // namespace

std::shared_ptr<Transport> c10d_transport(c10::intrusive_ptr<c10d::Backend> backend) {
  return std::make_shared<C10dTransport>(std::move(backend));
}

Mesh mesh_from_groups(const CallerGroups& groups, at::Device device) {
  if (!groups.data || !groups.expert_data || !groups.expert)
    throw UsageError("CallerGroups", "data, expert_data and expert must be given");
  auto transport = [](const c10::intrusive_ptr<c10d::Backend>& backend) {
    return backend ? c10d_transport(backend) : single_transport();
  };
  // Sizes may agree where members don't: then ranks with different experts would share one buffer.
  auto same_place = [&](const char* what, const c10::intrusive_ptr<c10d::Backend>& of,
                        const c10::intrusive_ptr<c10d::Backend>& over) {
    if (!over || over->getSize() == 1) return;
    // All places are equal when their variance is 0, which every rank sees alike.
    const int64_t place = of->getRank();
    const at::Tensor sums = at::tensor({place, place * place}, at::kLong).to(device);
    c10d_transport(over)->all_reduce(sums)->wait();
    const at::Tensor sum = sums.cpu();
    const int64_t total = sum[0].item<int64_t>();
    if (total * total != sum[1].item<int64_t>() * over->getSize()) throw UsageError("CallerGroups", what);
  };
  same_place("the ranks of expert_data have different places in their expert groups", groups.expert,
             groups.expert_data);
  same_place("the ranks of replicate have different places in their data groups", groups.data,
             groups.replicate);
  Mesh mesh = Mesh::from_transports({.world = transport(groups.world ? groups.world : groups.data),
                                     .data = transport(groups.data),
                                     .replicate = transport(groups.replicate),
                                     .expert = transport(groups.expert),
                                     .expert_data = transport(groups.expert_data)},
                                    device);
  if (groups.store) {
    const auto store = c10::make_intrusive<c10d::PrefixStore>("dsv3 mesh", groups.store);
    mesh.log().missing = [store, rank = mesh.rank(), world = mesh.world_size()](uint64_t) {
      return silent_ranks(store, rank, world, "");
    };
  }
  return mesh;
}

}  // namespace dsv3
