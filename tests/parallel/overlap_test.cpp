// What runs while collectives are under way.
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include "support/ranks.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

using test::Training;
using test::trajectory_run;
using Kind = CollectiveLog::Event::Kind;

struct Seen {
  Kind kind;
  std::string group, operation, unit;
};

// Of rank 0 of two. look: called with each event, at that time.
std::vector<Seen> events_of_a_step(
    std::vector<std::string> flags, int64_t ep = 1,
    const std::function<void(const Model&, const CollectiveLog::Event&)>& look = {}) {
  flags.insert(flags.end(), {"parallel.shard=2", "parallel.ep=" + std::to_string(ep),
                             "model.init=", "model.num_hidden_layers=4"});
  std::vector<Seen> seen;
  test::run_ranks({.replicate = 1, .shard = 2, .ep = ep}, [&](const Mesh& mesh) {
    Training training(trajectory_run(flags), mesh);
    if (mesh.rank() == 0)
      mesh.log().observer = [&](const CollectiveLog::Event& event) {
        if (look) look(training.model, event);
        seen.push_back(
            {event.kind, std::string(event.group), std::string(event.operation), std::string(event.unit)});
      };
    test::run_batch(training.model, training.loader.at(0, 2));
    mesh.log().observer = {};
  });
  return seen;
}

// Place of the n-th (from 0) such event.
size_t find(const std::vector<Seen>& seen, Kind kind, const char* operation, const char* unit, int n = 0) {
  for (size_t i = 0; i < seen.size(); ++i)
    if (seen[i].kind == kind && seen[i].group == "data" && seen[i].operation == operation &&
        seen[i].unit == unit && n-- == 0)
      return i;
  ADD_FAILURE() << operation << " of " << unit << " is not in the log";
  return 0;
}

// Block i is computed between the end of its all-gather and the beginning of the wait for the next one.
TEST(Overlap, AllGatherOfTheNextBlockIsIssuedBeforeABlockIsComputed) {
  const auto seen = events_of_a_step({"parallel.prefetch_forward=1"});
  for (int block = 0; block < 3; ++block) {
    const std::string next = "block " + std::to_string(block + 1);
    const size_t issued = find(seen, Kind::issue, "all_gather", next.c_str());
    const size_t waited = find(seen, Kind::wait, "all_gather", next.c_str());
    // Between the two lies block's whole computation: nothing else of `data` is waited for.
    EXPECT_LT(issued, waited);
    for (size_t i = issued; i < waited; ++i)
      EXPECT_FALSE(seen[i].kind == Kind::wait && seen[i].group == "data");
  }
  // Two ahead: block + 2 is issued before block + 1 is waited for, so before anything of it is computed.
  const auto two = events_of_a_step({"parallel.prefetch_forward=2"});
  for (int block = 0; block < 2; ++block)
    EXPECT_LT(find(two, Kind::issue, "all_gather", ("block " + std::to_string(block + 2)).c_str()),
              find(two, Kind::wait, "all_gather", ("block " + std::to_string(block + 1)).c_str()));
  const auto none = events_of_a_step({"parallel.prefetch_forward=0"});
  // Without: issued (the experts' on their own group beside it) and waited for at once.
  const size_t issued = find(none, Kind::issue, "all_gather", "block 2");
  for (size_t i = issued; i < find(none, Kind::wait, "all_gather", "block 2"); ++i)
    EXPECT_TRUE(none[i].kind == Kind::issue && none[i].unit == "block 2");
}

TEST(Overlap, BackwardGathersTheNextBlockAndReducesBehind) {
  const auto pre = events_of_a_step({"parallel.reshard=after_forward", "parallel.prefetch_backward=pre"});
  // The second gather of a block is backward's: issued before the gradient of the block above it is reduced.
  EXPECT_LT(find(pre, Kind::issue, "all_gather", "block 1", 1),
            find(pre, Kind::issue, "reduce_scatter", "block 2"));
  // The reduction of a block is waited for when later blocks have been issued.
  EXPECT_LT(find(pre, Kind::issue, "reduce_scatter", "block 2"),
            find(pre, Kind::wait, "reduce_scatter", "block 3"));
  const auto none = events_of_a_step({"parallel.reshard=after_forward", "parallel.prefetch_backward=none"});
  EXPECT_GT(find(none, Kind::issue, "all_gather", "block 1", 1),
            find(none, Kind::issue, "reduce_scatter", "block 2"));
}

// Whether the gather of the next block (of those below: backward walks down) is behind a block's backward or
// ahead of it, of a dense block, of MoE blocks and of MTP's.
TEST(Overlap, BackwardGathersTheNextBlockBehindABlockOrAheadOfIt) {
  for (const std::string mode : {"pre", "post"}) {
    SCOPED_TRACE(mode);
    std::map<std::string, int> gathers;  // of each block
    std::map<std::string, bool>
        has_grads;  // at its second one: whether the block above has all its gradients
    auto look = [&](const Model& model, const CollectiveLog::Event& event) {
      if (event.kind != Kind::issue || event.operation != "all_gather" || event.group != "data" ||
          !event.unit.starts_with("block "))
        return;
      const std::string block(event.unit);
      if (++gathers[block] < 2) return;
      bool& all = has_grads[block] = true;
      FlatUnit* above = model.flat_units_of(model.table().block_unit(std::stoi(block.substr(6)) + 1))[0];
      for (const FlatUnit::Slot& slot : above->slots())
        all = all && slot.param.grad.defined() && slot.param.grad.any().item<bool>();
    };
    const auto seen = events_of_a_step({"parallel.reshard=after_forward", "model.first_k_dense_replace=2",
                                        "parallel.prefetch_backward=" + mode},
                                       2, look);
    for (int block = 4; block >= 1; --block) {  // 4 is MTP's, 1 is dense
      const std::string here = block == 4 ? "mtp 1" : "block " + std::to_string(block);
      const std::string below = "block " + std::to_string(block - 1),
                        layer = "layer " + std::to_string(block);
      const size_t gather = find(seen, Kind::issue, "all_gather", below.c_str(), 1);
      EXPECT_EQ(has_grads[below], mode == "post") << block;
      EXPECT_LT(gather, find(seen, Kind::issue, "reduce_scatter", here.c_str()));
      size_t last_rows = 0;
      for (size_t i = 0; i < seen.size(); ++i)
        if (seen[i].operation == "all_to_all" && seen[i].unit == layer) last_rows = i;
      EXPECT_EQ(last_rows > 0, block > 1);
      if (block > 1) {
        EXPECT_EQ(gather > last_rows, mode == "post") << block;
      }
    }
  }
}

// What is gathered, or on its way, at any collective of a step. parallel.max_unsharded bounds what is ahead.
TEST(Overlap, NoMoreBlocksAreGatheredThanMaxUnshardedAllows) {
  auto most_gathered = [](int limit) {
    int most = 0;
    test::run_ranks({.replicate = 1, .shard = 2, .ep = 1}, [&](const Mesh& mesh) {
      Training training(trajectory_run({"parallel.shard=2", "model.init=", "model.num_hidden_layers=6",
                                        "parallel.reshard=after_forward", "parallel.prefetch_forward=4",
                                        "parallel.max_unsharded=" + std::to_string(limit)}),
                        mesh);
      if (mesh.rank() == 0)
        mesh.log().observer = [&](const CollectiveLog::Event&) {
          int gathered = 0;
          for (int64_t layer = 0; layer < 7; ++layer)
            for (const FlatUnit* unit :
                 training.model.flat_units_of(training.model.table().block_unit(layer)))
              if (!unit->is_sharded()) {
                ++gathered;
                break;
              }
          most = std::max(most, gathered);
        };
      test::run_batch(training.model, training.loader.at(0, 2));
      mesh.log().observer = {};
    });
    return most;
  };
  EXPECT_EQ(most_gathered(0), 5);  // the one that is computed, and four ahead
  EXPECT_EQ(most_gathered(3), 3);
  EXPECT_EQ(most_gathered(1), 1);
}

// The matrix products that run between the start of a dispatch and the wait for its rows: of the shared
// experts, forward and backward.
TEST(Overlap, SharedExpertsRunWhileRowsTravel) {
  std::vector<int> products;  // between the two, of each exchange of rows
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 2}, [&](const Mesh& mesh) {
    RunConfig run = trajectory_run({"parallel.shard=2", "parallel.ep=2",
                                    "model.init=", "model.num_nextn_predict_layers=0", "balance.loss=none"});
    run.ops.backend = "aten";  // whose products are known by their names
    Training training(run, mesh);
    const Batch batch = training.loader.at(0, 2);
    if (mesh.rank() != 0) {
      test::run_batch(training.model, batch);
      return;
    }
    static thread_local int count = 0;
    std::map<uint64_t, int> at_issue;
    mesh.log().observer = [&](const CollectiveLog::Event& event) {
      if (event.operation != "all_to_all") return;
      if (event.kind == Kind::issue) at_issue[event.sequence] = count;
      if (event.kind == Kind::wait) products.push_back(count - at_issue[event.sequence]);
    };
    const at::CallbackHandle callback = at::addThreadLocalCallback(
        at::RecordFunctionCallback([](const at::RecordFunction& call)
                                       -> std::unique_ptr<at::ObserverContext> {
          if (const std::string_view name = call.name(); name == "aten::mm" || name == "aten::addmm_")
            ++count;
          return nullptr;
        }).scopes({at::RecordScope::FUNCTION}));
    test::run_batch(training.model, batch);
    at::removeCallback(callback);
    mesh.log().observer = {};
  });
  // One MoE layer, one micro-batch a rank: the counts, rows and weights there, rows back; and their
  // gradients.
  ASSERT_EQ(products.size(), 7u);
  EXPECT_EQ(products[0], 0);  // counts
  EXPECT_EQ(products[1], 3);  // rows: gate, up and down of the shared experts
  EXPECT_EQ(products[2], 3);  // their weights, on their way as long
  EXPECT_EQ(products[3], 0);  // back
  EXPECT_EQ(std::count_if(products.begin() + 4, products.end(), [](int n) { return n >= 3; }), 2)
      << "gradients of rows and weights travel while the shared experts' are computed";
}

// Embedding and head serve the main model and every MTP depth, and are reduced once a micro-batch.
TEST(Overlap, SharedUnitsAreReducedOnceAfterTheirLastUse) {
  const auto seen = events_of_a_step({"model.num_nextn_predict_layers=2"});
  int reduced = 0;
  size_t last_block = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i].kind != Kind::issue || seen[i].operation != "reduce_scatter") continue;
    if (seen[i].unit == "embedding") {
      ++reduced;
      EXPECT_GT(i, last_block);
    }
    if (seen[i].unit == "block 0") last_block = i;
  }
  EXPECT_EQ(reduced, 1);
  EXPECT_GT(last_block, 0u);
}

// One network for all groups carries a collective at a time, each for as long as makes the communication of a
// step equal to its computation on this machine. Two ranks leave two cores no room
// for anything else, so what other programs take is in every time: rounds of both measurements are repeated
// until the shortest step is short enough, which one that waits for its collectives in turn never is.
TEST(Overlap, AStepTakesLessThanItsComputationAndItsCommunicationInTurn) {
  auto seconds = [](double delay_ms) {
    const std::vector<std::string> flags = {"train.dtype=fp32",
                                            "model.init=",
                                            "model.hidden_size=128",
                                            "data.seq_len=256",
                                            "train.global_batch=8",
                                            "train.micro_batch=4",
                                            "model.num_hidden_layers=8",
                                            "balance.loss=none",
                                            "model.intermediate_size=512",
                                            "parallel.shard=2",
                                            "parallel.reshard=after_forward",
                                            "parallel.prefetch_forward=2"};
    double step_s = 1e9, calls = 0;
    test::run_ranks({.replicate = 1, .shard = 2, .ep = 1},
                    [&](const Mesh& mesh) {
                      Training training(trajectory_run(flags), mesh);
                      for (int i = 0; i < 8; ++i) {
                        const StepMetrics metrics = training.trainer.step();
                        if (mesh.rank() != 0) continue;
                        step_s = std::min(step_s, metrics.step_s);
                        calls = 0;
                        for (const auto& group : metrics.comm) calls += static_cast<double>(group.calls);
                      }
                    },
                    {.delay_ms = delay_ms});
    return std::pair(step_s, calls);
  };
  double compute = 1e9, ratio = 1e9;
  std::string rounds;
  for (int round = 0; round < 20 && ratio > 0.7; ++round) {
    const auto [alone, calls] = seconds(0);
    compute = std::min(compute, alone);
    const double together = seconds(1e3 * compute / calls).first;
    ratio = std::min(ratio, together / (compute + compute));
    rounds += std::to_string(alone) + " s alone, " + std::to_string(together) + " s with a network\n";
  }
  EXPECT_LE(ratio, 0.7) << rounds;
}

}  // namespace
}  // namespace dsv3
