// Each transport against what its header promises; data is a function of rank and place, so that each rank
// checks alone what it got.
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <torch/csrc/distributed/c10d/FileStore.hpp>

#include "dsv3/comm/backends.h"
#include "dsv3/comm/c10d.h"
#include "support/files.h"
#include "support/ranks.h"

namespace dsv3 {
namespace {

// libtorch records collectives in one place of the process, without a lock: ranks as threads do without.
[[maybe_unused]] const bool kNoRecorder = ::setenv("TORCH_FR_BUFFER_SIZE", "0", 1) == 0;

// fn(transport) on `size` ranks of the named kind.
void on_ranks(const std::string& kind, int size, const std::function<void(Transport&)>& fn) {
  if (kind == "single") {
    fn(*single_transport());
    return;
  }
  const test::TempDir dir;
  const auto hub = std::make_shared<test::Hub>(size, test::RankOptions{.chaos = kind == "chaos"});
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      if (kind == "gloo") {
        auto store = c10::make_intrusive<c10d::FileStore>((dir / "store").string(), size);
        const auto transport = c10d_transport(make_gloo(store, rank, size, true, std::chrono::seconds(60)));
        fn(*transport);
        transport->all_reduce(at::ones({1}))->wait();  // nobody leaves before all are through
      } else {
        fn(*std::make_shared<test::HubTransport>(hub, rank));
      }
    });
  for (std::thread& thread : threads) thread.join();
}

struct Kind {
  const char* name;
  int size;
};

class Transports : public testing::TestWithParam<Kind> {
 protected:
  void each(const std::function<void(Transport&)>& fn) { on_ranks(GetParam().name, GetParam().size, fn); }
};

// Element i of rank r.
at::Tensor values(int64_t count, int rank, at::ScalarType dtype = at::kDouble) {
  return at::arange(count, at::kDouble).add_(100.0 * rank).to(dtype);
}

TEST_P(Transports, AllGather) {
  each([](Transport& t) {
    for (auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const at::Tensor out = at::empty({t.size() * 3}, at::TensorOptions().dtype(dtype));
      const at::Tensor in = values(3, t.rank(), dtype);
      t.all_gather(out, in)->wait();
      for (int r = 0; r < t.size(); ++r) EXPECT_TRUE(out.narrow(0, 3 * r, 3).equal(values(3, r, dtype)));
    }
  });
}

TEST_P(Transports, ReduceScatterAndAllReduce) {
  each([](Transport& t) {
    const int64_t n = t.size();
    at::Tensor expected = at::zeros({n * 4}, at::kDouble);
    for (int r = 0; r < n; ++r) expected += values(n * 4, r);
    const at::Tensor out = at::empty({4}, at::kDouble), in = values(n * 4, t.rank());
    t.reduce_scatter(out, in)->wait();
    EXPECT_TRUE(out.equal(expected.narrow(0, 4 * t.rank(), 4)));
    at::Tensor all = values(n * 4, t.rank());
    t.all_reduce(all)->wait();
    EXPECT_TRUE(all.equal(expected));
    at::Tensor integers = values(5, t.rank(), at::kLong);
    t.all_reduce(integers)->wait();
    EXPECT_EQ(integers[1].item<int64_t>(), n + 100 * n * (n - 1) / 2);
  });
}

TEST_P(Transports, Broadcast) {
  each([](Transport& t) {
    const int root = t.size() - 1;
    at::Tensor x = values(6, t.rank());
    t.broadcast(x, root)->wait();
    EXPECT_TRUE(x.equal(values(6, root)));
  });
}

// Rows that rank `from` sends to `to` in `slot`; many are zero.
int64_t rows(int from, int to, int slot) { return (from * 7 + to * 5 + slot * 3) % 4; }

TEST_P(Transports, AllToAllIsSlotMajorAndUneven) {
  each([](Transport& t) {
    constexpr int kSlots = 3;
    SlotRows send, recv;
    std::vector<at::Tensor> sent, expected;
    auto row = [](int from, int to, int slot, int64_t i) {
      return at::full({1, 2}, from * 1000.0 + to * 100.0 + slot * 10.0 + static_cast<double>(i), at::kFloat);
    };
    for (int slot = 0; slot < kSlots; ++slot)
      for (int peer = 0; peer < t.size(); ++peer) {
        send.push_back(rows(t.rank(), peer, slot));
        recv.push_back(rows(peer, t.rank(), slot));
        for (int64_t i = 0; i < send.back(); ++i) sent.push_back(row(t.rank(), peer, slot, i));
        for (int64_t i = 0; i < recv.back(); ++i) expected.push_back(row(peer, t.rank(), slot, i));
      }
    const at::Tensor none = at::empty({0, 2}, at::kFloat);
    const at::Tensor in = sent.empty() ? none : at::cat(sent);
    const at::Tensor want = expected.empty() ? none : at::cat(expected);
    const at::Tensor out = at::empty_like(want);
    t.all_to_all(out, in, recv, send)->wait();
    EXPECT_TRUE(out.equal(want));
  });
}

TEST_P(Transports, SeveralUnderWayAtOnce) {
  each([](Transport& t) {
    std::vector<at::Tensor> xs;
    std::vector<std::unique_ptr<Pending>> pending;
    for (int i = 0; i < 5; ++i) {
      xs.push_back(at::full({1000}, i + 1.0));
      pending.push_back(t.all_reduce(xs.back()));
    }
    for (int i = 4; i >= 0; --i) pending[i]->wait();
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(xs[i].eq((i + 1.0) * t.size()).all().item<bool>());
  });
}

// What wait() says after `fault` on tensors that are under way, on one rank of the transport in memory. They
// are the caller's only references.
std::string said(bool chaos, const std::function<void(at::Tensor& out, at::Tensor& in)>& fault) {
  test::HubTransport transport(std::make_shared<test::Hub>(1, test::RankOptions{.chaos = chaos}), 0);
  at::Tensor out = at::empty({8}), in = at::ones({8});
  const auto pending = transport.all_gather(out, in);
  fault(out, in);
  try {
    pending->wait();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return out.defined() && out.equal(at::ones({8})) ? "well" : "a wrong result";
}

// The tests of layouts rest on this.
TEST(MemoryTransport, SeesTensorsThatAreGivenUpOrTouched) {
  for (const bool chaos : {false, true}) {
    EXPECT_EQ(said(chaos, [](auto&, auto&) {}), "well");
    EXPECT_EQ(said(chaos, [](auto&, auto& in) { in.reset(); }), "a tensor was given up under way");
    EXPECT_EQ(said(chaos, [](auto& out, auto&) { out.reset(); }), "a tensor was given up under way");
  }
  EXPECT_EQ(said(true, [](auto& out, auto&) { out.zero_(); }), "a tensor changed under way");
  EXPECT_EQ(said(true, [](auto&, auto& in) { in.zero_(); }), "a tensor changed under way");
}

INSTANTIATE_TEST_SUITE_P(All, Transports,
                         testing::Values(Kind{"single", 1}, Kind{"gloo", 2}, Kind{"gloo", 3},
                                         Kind{"memory", 3}, Kind{"chaos", 3}),
                         [](const auto& info) { return info.param.name + std::to_string(info.param.size); });

}  // namespace
}  // namespace dsv3
