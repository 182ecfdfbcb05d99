// Layouts, and what the launchers' environments say.
#include "dsv3/comm/mesh.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "dsv3/base/error.h"
#include "support/ranks.h"

namespace dsv3 {
namespace {

using Ranks = std::vector<int>;

TEST(MeshLayout, GroupsOfEightRanks) {
  const MeshLayout layout{.replicate = 2, .shard = 4, .ep = 2};
  EXPECT_EQ(layout.data_ranks(5), (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(layout.replicate_ranks(5), (Ranks{1, 5}));
  EXPECT_EQ(layout.expert_ranks(5), (Ranks{4, 5}));  // consecutive
  EXPECT_EQ(layout.expert_data_ranks(5), (Ranks{5, 7}));
  EXPECT_EQ(layout.expert_data_ranks(2), (Ranks{0, 2}));
}

// Every rank is in exactly one group of each kind, at the same place as its peers see it.
TEST(MeshLayout, GroupsPartitionTheWorld) {
  for (const MeshLayout layout : {MeshLayout{1, 8, 4}, {2, 4, 4}, {4, 2, 1}, {3, 6, 3}, {1, 1, 1}})
    for (int rank = 0; rank < layout.world(); ++rank)
      for (auto ranks_of : {&MeshLayout::data_ranks, &MeshLayout::replicate_ranks, &MeshLayout::expert_ranks,
                            &MeshLayout::expert_data_ranks}) {
        const Ranks ranks = (layout.*ranks_of)(rank);
        EXPECT_EQ(std::count(ranks.begin(), ranks.end(), rank), 1);
        for (int peer : ranks) EXPECT_EQ((layout.*ranks_of)(peer), ranks);
      }
}

std::string refusal(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MeshLayout, ImpossibleOnesAreRefusedByKey) {
  auto of = [](int64_t replicate, int64_t shard, int64_t ep, int64_t world) {
    return refusal([&] { MeshLayout::of({.replicate = replicate, .shard = shard, .ep = ep}, world); });
  };
  EXPECT_EQ(of(3, 0, 1, 8), "parallel.replicate: 3 does not divide the world of 8 ranks");
  EXPECT_EQ(of(2, 3, 1, 8), "parallel.shard: replicate · shard = 2 · 3, the world has 8 ranks");
  EXPECT_EQ(of(2, 0, 3, 8), "parallel.ep: 3 does not divide shard = 4");
  EXPECT_EQ(of(2, 0, 4, 8), "accepted");
}

class Environment : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name : {"RANK",
                             "WORLD_SIZE",
                             "LOCAL_RANK",
                             "LOCAL_WORLD_SIZE",
                             "MASTER_ADDR",
                             "MASTER_PORT",
                             "DSV3_RUN_FOLDER",
                             "TORCHELASTIC_RUN_ID",
                             "TORCHELASTIC_USE_AGENT_STORE",
                             "TORCHELASTIC_RESTART_COUNT",
                             "OMPI_COMM_WORLD_RANK",
                             "OMPI_COMM_WORLD_SIZE",
                             "OMPI_COMM_WORLD_LOCAL_RANK",
                             "OMPI_COMM_WORLD_LOCAL_SIZE",
                             "PMIX_NAMESPACE",
                             "PMI_RANK",
                             "PMI_SIZE",
                             "MPI_LOCALRANKID",
                             "MPI_LOCALNRANKS",
                             "SLURM_PROCID",
                             "SLURM_STEP_NUM_TASKS",
                             "SLURM_LOCALID",
                             "SLURM_STEP_NUM_NODES",
                             "SLURM_JOB_ID",
                             "SLURM_STEP_ID",
                             "SLURM_NTASKS"})
      ::unsetenv(name);
  }
  static void set(std::initializer_list<std::pair<const char*, const char*>> values) {
    for (const auto& [name, value] : values) ::setenv(name, value, 1);
  }
};

TEST_F(Environment, NoLauncherIsOneRank) {
  const LaunchEnv env = LaunchEnv::read();
  EXPECT_EQ(env.launcher, LaunchEnv::Launcher::none);
  EXPECT_EQ(env.world, 1);
}

TEST_F(Environment, Torchrun) {
  set({{"RANK", "5"},
       {"WORLD_SIZE", "8"},
       {"LOCAL_RANK", "1"},
       {"LOCAL_WORLD_SIZE", "4"},
       {"MASTER_ADDR", "node1"},
       {"MASTER_PORT", "29500"},
       {"TORCHELASTIC_USE_AGENT_STORE", "True"},
       {"TORCHELASTIC_RESTART_COUNT", "3"},
       {"TORCHELASTIC_RUN_ID", "nightly"}});
  const LaunchEnv env = LaunchEnv::read();
  EXPECT_EQ(env.launcher, LaunchEnv::Launcher::torchrun);
  EXPECT_EQ(env.rank, 5);
  EXPECT_EQ(env.local_rank, 1);
  EXPECT_EQ(env.host, "node1");
  EXPECT_EQ(env.port, 29500);
  EXPECT_TRUE(env.agent_store);
  EXPECT_FALSE(env.one_host());
  EXPECT_EQ(env.prefix, "restart 3");
  EXPECT_EQ(env.job, "nightly");
}

TEST_F(Environment, MpirunOnOneHostMeetsInAFolder) {
  set({{"OMPI_COMM_WORLD_RANK", "1"},
       {"OMPI_COMM_WORLD_SIZE", "2"},
       {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
       {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
       {"PMIX_NAMESPACE", "prterun-host-1@1"}});
  const LaunchEnv env = LaunchEnv::read();
  EXPECT_EQ(env.launcher, LaunchEnv::Launcher::mpirun);
  EXPECT_EQ(env.rank, 1);
  EXPECT_NE(env.folder.find("mpi-prterun-host-1-1"), std::string::npos) << env.folder;
  EXPECT_EQ(env.job, "prterun-host-1@1");
}

TEST_F(Environment, SrunOnSeveralHostsNeedsAnAddress) {
  set({{"SLURM_PROCID", "3"},
       {"SLURM_STEP_NUM_TASKS", "4"},
       {"SLURM_LOCALID", "1"},
       {"SLURM_STEP_NUM_NODES", "2"}});
  EXPECT_NE(refusal([] { LaunchEnv::read(); }).find("MASTER_ADDR"), std::string::npos);
  set({{"MASTER_ADDR", "node1"}, {"MASTER_PORT", "29501"}});
  EXPECT_EQ(LaunchEnv::read().rank, 3);
  set({{"SLURM_STEP_NUM_NODES", "1"}, {"MASTER_ADDR", ""}, {"SLURM_JOB_ID", "77"}});
  EXPECT_NE(LaunchEnv::read().folder.find("slurm-77"), std::string::npos);
  EXPECT_EQ(LaunchEnv::read().job, "77.0.0");
}

// A batch script is no job step: SLURM_NTASKS stands there, too.
TEST_F(Environment, ABatchScriptIsOneRank) {
  set({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}});
  EXPECT_EQ(LaunchEnv::read().world, 1);
}

TEST_F(Environment, WrongValuesAreNamed) {
  auto with = [](std::initializer_list<std::pair<const char*, const char*>> values) {
    clear();
    set({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29500"}});
    set(values);
    return refusal([] { LaunchEnv::read(); });
  };
  EXPECT_NE(with({{"RANK", "2"}}).find("RANK: is 2, WORLD_SIZE is 2"), std::string::npos);
  EXPECT_NE(with({{"RANK", "-1"}}).find("RANK: is '-1'"), std::string::npos);
  EXPECT_NE(with({{"WORLD_SIZE", "two"}}).find("WORLD_SIZE: is 'two'"), std::string::npos);
  EXPECT_NE(with({{"WORLD_SIZE", ""}}).find("WORLD_SIZE: is not set"), std::string::npos);
  EXPECT_NE(with({{"MASTER_PORT", "65536"}}).find("MASTER_PORT: is '65536'"), std::string::npos);
  EXPECT_NE(with({{"MASTER_ADDR", ""}}).find("MASTER_ADDR"), std::string::npos);
  for (const char* other : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"}) {
    EXPECT_NE(with({{other, "4"}}).find("two launchers"), std::string::npos) << other;
    EXPECT_EQ(with({{other, "2"}}), "accepted") << other;
    EXPECT_EQ(with({{other, "4"}, {"TORCHELASTIC_RUN_ID", "none"}}), "accepted") << other;
  }
  EXPECT_EQ(with({}), "accepted");
}

TEST(Mesh, SumsAndRefusesAnotherOrder) {
  test::run_ranks({.replicate = 1, .shard = 3, .ep = 3}, [](const Mesh& mesh) {
    EXPECT_EQ(mesh.sum(std::vector<int64_t>{mesh.rank(), 1}, "numbers"), (std::vector<int64_t>{3, 3}));
    EXPECT_EQ(mesh.sum(std::vector{0.5}, "halves"), std::vector{1.5});
    const at::Tensor x = at::ones({4});
    // Equal sizes in another order: silently wrong without the hash.
    mesh.data().all_reduce(x, mesh.rank() == 1 ? "b" : "a").wait();
    EXPECT_THROW(mesh.sum(std::vector<int64_t>{1}, "numbers"), RunError);
  });
}

// Waiting, and nothing else: not the time under way that is spent otherwise, and not in other groups.
TEST(Mesh, GroupsCountTheTimeThatTheyAreWaitedFor) {
  using Clock = std::chrono::steady_clock;
  constexpr double kDelay = 0.02;
  constexpr int kCalls = 5;
  test::run_ranks({.replicate = 1, .shard = 2, .ep = 2},
                  [&](const Mesh& mesh) {
                    const at::Tensor x = at::ones({4});
                    auto seconds = [](Clock::time_point begin) {
                      return std::chrono::duration<double>(Clock::now() - begin).count();
                    };
                    double issued = 0;  // on its way already while the call returns
                    for (int i = 0; i < kCalls; ++i) {
                      const auto begin = Clock::now();
                      Work work = mesh.data().all_reduce(x, "x");
                      issued += seconds(begin);
                      work.wait();
                    }
                    const double waited = mesh.data().counters().wait_s;
                    EXPECT_GE(waited + issued, 0.95 * kCalls * kDelay);

                    Work work = mesh.data().all_reduce(x, "x");
                    std::this_thread::sleep_for(std::chrono::duration<double>(3 * kDelay));
                    const auto begin = Clock::now();
                    work.wait();
                    EXPECT_LE(mesh.data().counters().wait_s - waited, seconds(begin));
                    EXPECT_EQ(mesh.expert().counters().wait_s, 0);
                  },
                  {.delay_ms = 1e3 * kDelay});
}

TEST(Mesh, ContradictingGroupsAreRefused) {
  auto single = single_transport();
  auto hub = std::make_shared<test::Hub>(2, test::RankOptions{});
  auto two = std::make_shared<test::HubTransport>(hub, 0);
  EXPECT_NE(refusal([&] {
              Mesh::from_transports({two, two, single, single, single});
            }).find("data has 2"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              Mesh::from_transports({single, two, single, two, single});
            }).find("world has 1"),
            std::string::npos);
}

}  // namespace
}  // namespace dsv3
