// Ranks that die, stop or hang, signals of the user, and the launcher's own death.
#include <sys/resource.h>

#include "launch/job.h"

namespace dsv3::test {
namespace {

bool all_gone(const std::vector<pid_t>& pids) { return std::all_of(pids.begin(), pids.end(), is_gone); }

const char* const kSteps = "phase:backward;enter:all_gather,block 3;beats;touch:ready-";  // + rank

std::vector<std::string> ranks_of(int ranks, const std::string& before, const std::string& after) {
  std::vector<std::string> env;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::string name = std::to_string(rank);
    env.push_back("FAKE_" + name + "=" + before + kSteps + name + ";" + after);
  }
  return env;
}

TEST(DeadRank, IsNamedWithWhereItWas) {
  for (int signal : {SIGKILL, SIGSEGV, SIGABRT}) {
    struct rlimit core = {0, 0};
    ::setrlimit(RLIMIT_CORE, &core);
    std::vector<std::string> env = ranks_of(4, "", "forever");
    env[2] =
        "FAKE_2=phase:backward;enter:all_gather,block 3;beats;err:step 1\\nstep 2\\n;touch:ready-2;forever";
    Job job({"train", "--nproc", "4"}, env);
    ASSERT_TRUE(job.ready({0, 1, 2, 3}));
    const std::vector<pid_t> pids = job.pids();
    const int64_t start = monotonic_ms();
    ::kill(pids[2], signal);
    const Result result = job.wait();
    EXPECT_LT(monotonic_ms() - start, 5000);
    EXPECT_EQ(result.code, 1);
    const std::string name = signal == SIGKILL ? "SIGKILL" : signal == SIGSEGV ? "SIGSEGV" : "SIGABRT";
    EXPECT_EQ(result.err, "[rank 2] step 1\n[rank 2] step 2\ndsv3: error: rank 2 on " + host() +
                              ": killed by " + name +
                              " in backward, all_gather of block 3; its last lines: step 1 | step 2\n");
    EXPECT_TRUE(all_gone(pids));
    EXPECT_TRUE(job.folders().empty());
  }
}

// As Gloo does: within milliseconds the survivors fail too.
TEST(DeadRank, IsNamedAndNotItsSurvivors) {
  std::vector<std::string> env =
      ranks_of(4, "", "wait:dying;err:dsv3: error: connection closed by peer\\n;exit:1");
  env[2] = "FAKE_2=phase:forward;touch:dying;raise:9";
  const Result result = run_job({"train", "--nproc", "4"}, env);
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err, "dsv3: error: rank 2 on " + host() + ": killed by SIGKILL in forward\n")
      << "what the others say is a consequence";
}

TEST(DeadRank, OthersThatIgnoreSigtermAreKilled) {
  const std::vector<std::string> env = ranks_of(3, "ignore:15;", "forever");
  Job job({"train", "--nproc", "3"}, env);
  ASSERT_TRUE(job.ready({0, 1, 2}));
  const std::vector<pid_t> pids = job.pids();
  const int64_t start = monotonic_ms();
  ::kill(pids[0], SIGKILL);
  const Result result = job.wait();
  EXPECT_LT(monotonic_ms() - start, 5000);
  EXPECT_GE(monotonic_ms() - start, 2000) << "no time for others to say why they fail";
  EXPECT_TRUE(has(result.err, "rank 0 on ")) << result.err;
  EXPECT_TRUE(all_gone(pids));
}

TEST(StoppedRank, IsNamedAtOnceAndAgainWhenItContinues) {
  std::vector<std::string> env = ranks_of(3, "", "wait:go");
  // Its first beat after that takes a while.
  env[1] = "FAKE_1=count:18;phase:forward;beat;touch:ready-1;await:18;sleep:600;beats;touch:back;wait:go";
  Job job({"train", "--nproc", "3"}, env);
  ASSERT_TRUE(job.ready({0, 1, 2}));
  const pid_t stopped = job.pids()[1];
  ::kill(stopped, SIGSTOP);
  ASSERT_TRUE(job.err_has(
      "dsv3: warning: rank 1 is stopped (SIGSTOP); the others wait for it in all_gather of block 3\n"))
      << job.err();
  EXPECT_EQ(job.board().status(1).state, RankState::stopped);
  EXPECT_EQ(missing_in_words(job.board(), 1), "rank 1 (stopped)");
  std::this_thread::sleep_for(std::chrono::milliseconds(3 * kHeartbeatMs));
  ::kill(stopped, SIGCONT);
  ASSERT_TRUE(job.err_has("dsv3: warning: rank 1 continues\n"));
  EXPECT_EQ(job.board().status(1).state, RankState::running);
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(job.folders()[0] / "back"); }));
  write_file(job.folders()[0] / "go", "");
  const Result result = job.wait();
  EXPECT_EQ(result.code, 0);
  EXPECT_TRUE(result.err.ends_with("rank 1 continues\n")) << "its old heartbeat is no news: " << result.err;
}

// The others time out and are noticed first. Rank 0 has closed its groups before, and has no heart any more.
TEST(StoppedRank, IsTheCulpritAndNotTheOnesThatWaitedForIt) {
  std::vector<std::string> env =
      ranks_of(4, "", "wait:timeout;err:dsv3: error: reduce_scatter: timed out\\n;exit:1");
  env[2] = "FAKE_2=phase:backward;enter:all_gather,block 3;beats;touch:ready-2;forever";  // waits to the end
  env[0].replace(env[0].find("beats"), 5, "beat;farewell");
  env[3] =
      "FAKE_3=count:15;phase:forward;issue:all_gather,block 3;beats;touch:ready-3;await:15;err:dsv3: error: "
      "gone\\n;exit:1";
  Job job({"train", "--nproc", "4"}, env);
  ASSERT_TRUE(job.ready({0, 1, 2, 3}));
  const std::vector<pid_t> pids = job.pids();
  ::kill(pids[3], SIGSTOP);
  ASSERT_TRUE(job.err_has("rank 3 is stopped"));
  std::this_thread::sleep_for(std::chrono::milliseconds(5 * kHeartbeatMs / 2));
  write_file(job.folders()[0] / "timeout", "");
  const Result result = job.wait();
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(
      result.err,
      "dsv3: warning: rank 3 is stopped (SIGSTOP); the others wait for it in all_gather of block 3\n"
      "[rank 0] dsv3: error: reduce_scatter: timed out\n[rank 1] dsv3: error: reduce_scatter: timed out\n"
      "dsv3: error: rank 3 on " +
          host() +
          ": stopped by SIGSTOP in forward, after all_gather of block 3; "
          "the others waited for it in all_gather of block 3\n");
  EXPECT_TRUE(all_gone(pids));
}

TEST(StoppedRank, IsNamedWhenNobodyWaitsYetAndEndsWithTheJob) {
  Job job({"train", "--nproc", "2"}, {"FAKE_0=touch:ready-0;wait:go;exit:3", "FAKE_1=touch:ready-1;forever"});
  ASSERT_TRUE(job.ready({0, 1}));
  const std::vector<pid_t> pids = job.pids();
  ::kill(pids[1], SIGSTOP);
  ASSERT_TRUE(job.err_has("dsv3: warning: rank 1 is stopped (SIGSTOP); the others will wait for it\n"))
      << job.err();
  write_file(job.folders()[0] / "go", "");
  EXPECT_EQ(job.wait().code, 3);
  EXPECT_TRUE(all_gone(pids));
}

TEST(SilentRank, IsNamedOnceWhileOthersWait) {
  std::vector<std::string> env = ranks_of(3, "", "wait:go");
  env[1] = "FAKE_1=phase:forward;beat;touch:ready-1;wait:go";
  Job job({"train", "--nproc", "3"}, env);
  ASSERT_TRUE(job.ready({0, 1, 2}));
  ASSERT_TRUE(job.err_has("dsv3: warning: rank 1 shows no sign of life for ")) << job.err();
  std::this_thread::sleep_for(std::chrono::milliseconds(2 * kHeartbeatMs));
  write_file(job.folders()[0] / "go", "");
  const Result result = job.wait();
  EXPECT_EQ(count(result.err, "rank 1 shows"), 1u) << result.err;
  EXPECT_TRUE(has(result.err, " s; the others wait for it in all_gather of block 3\n")) << result.err;
}

// Silent as a whole, or only the thread that computes: its heart beats on.
TEST(SilentRank, IsTheCulpritAndNotTheOnesThatWaitedForIt) {
  for (const bool beats : {false, true}) {
    std::vector<std::string> env =
        ranks_of(3, "", "wait:timeout;err:dsv3: error: all_gather: timed out\\n;exit:1");
    env[1] = std::string("FAKE_1=phase:forward;") + (beats ? "beats" : "beat") + ";touch:ready-1;forever";
    Job job({"train", "--nproc", "3"}, env);
    ASSERT_TRUE(job.ready({0, 1, 2}));
    ASSERT_TRUE(beats || job.err_has("rank 1 shows no sign of life"));
    write_file(job.folders()[0] / "timeout", "");
    const Result result = job.wait();
    EXPECT_EQ(result.code, 1);
    const std::string last = result.err.substr(result.err.rfind("dsv3: error: "));
    EXPECT_TRUE(last.starts_with("dsv3: error: rank 1 on " + host() +
                                 (beats ? ": still in forward; " : ": without a sign of life for ")))
        << result.err;
    EXPECT_TRUE(last.ends_with("in forward; the others waited for it in all_gather of block 3\n"))
        << result.err;
  }
}

TEST(SilentRank, IsNotNamedWhenNobodyWaits) {
  const Result result = run_job({"train", "--nproc", "2"}, {"FAKE=phase:load;beat;sleep:3500"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "");
}

TEST(Interrupt, GoesToEachRankOnce) {
  for (int signal : {SIGINT, SIGTERM}) {
    const std::string number = std::to_string(signal);
    Job job(
        {"train", "--nproc", "3"},
        ranks_of(3, "count:" + number + ";", "await:" + number + ";sleep:300;tell:" + number + ";exit:75"));
    ASSERT_TRUE(job.ready({0, 1, 2}));
    job.signal(signal);
    const Result result = job.wait();
    EXPECT_EQ(result.code, 75);
    EXPECT_EQ(result.out, "signals: 1\n");
    EXPECT_EQ(count(result.err, "signals: 1\n"), 2u) << result.err;
    EXPECT_EQ(count(result.err, "\n"), 2u) << result.err;
    EXPECT_TRUE(job.folders().empty());
  }
}

TEST(Interrupt, LetsARankThatSavesTakeItsTime) {
  std::vector<std::string> env = ranks_of(2, "count:15;", "await:15;exit:75");
  env[0] = "FAKE_0=count:15;touch:ready-0;await:15;sleep:4000;out:saved;exit:75";
  Job job({"train", "--nproc", "2"}, env);
  ASSERT_TRUE(job.ready({0, 1}));
  job.signal(SIGTERM);
  const Result result = job.wait();
  EXPECT_EQ(result.code, 75);
  EXPECT_EQ(result.out, "saved");
}

TEST(Interrupt, OfRanksWithoutAHandler) {
  for (int signal : {SIGINT, SIGTERM}) {
    Job job({"train", "--nproc", "3"}, ranks_of(3, "", "forever"));
    ASSERT_TRUE(job.ready({0, 1, 2}));
    job.signal(signal);
    const Result result = job.wait();
    EXPECT_EQ(result.code, 128 + signal);
    EXPECT_EQ(result.err, "");
  }
}

TEST(Interrupt, TwiceKills) {
  for (int signal : {SIGINT, SIGTERM}) {
    const std::string number = std::to_string(signal);
    Job job({"train", "--nproc", "3"},
            ranks_of(3, "count:" + number + ";", "await:" + number + ";err:saving\\n;forever"));
    ASSERT_TRUE(job.ready({0, 1, 2}));
    const std::vector<pid_t> pids = job.pids();
    job.signal(signal);
    for (const char* rank : {"0", "1", "2"})
      ASSERT_TRUE(job.err_has(std::string("[rank ") + rank + "] saving"));
    job.signal(signal);
    const Result result = job.wait();
    EXPECT_EQ(result.code, 128 + signal);
    EXPECT_TRUE(all_gone(pids));
    EXPECT_TRUE(job.folders().empty());
    EXPECT_FALSE(has(result.err, "dsv3: error")) << result.err;
  }
}

TEST(Interrupt, ReachesStoppedRanks) {
  std::vector<std::string> env = ranks_of(2, "", "forever");
  env[0] = "FAKE_0=count:2;touch:ready-0;await:2;out:obeyed;exit:130";
  Job job({"train", "--nproc", "2"}, env);
  ASSERT_TRUE(job.ready({0, 1}));
  ::kill(job.pids()[0], SIGSTOP);
  ASSERT_TRUE(job.err_has("rank 0 is stopped"));
  job.signal(SIGINT);
  const Result result = job.wait();
  EXPECT_EQ(result.code, 130);
  EXPECT_EQ(result.out, "obeyed");
}

// A reader of stdout that has stopped reading does not blind the launcher.
TEST(SilentRank, IsNamedWhileStdoutIsNotRead) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  const int reader = ::open((dir / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  Job job({"train", "--nproc", "2"},
          {std::string("FAKE_0=") + kSteps + "0;out:x;sleep:300;letters:2000000",
           "FAKE_1=beat;touch:ready-1;forever"},
          dir / "fifo");
  ASSERT_TRUE(job.ready({0, 1}));
  EXPECT_TRUE(job.err_has("rank 1 shows no sign of life"));
  ::close(reader);
}

// A reader of stdout that has stopped reading keeps nobody from Ctrl-C.
TEST(Interrupt, WhileStdoutIsNotRead) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  const int reader = ::open((dir / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  Job job({"train", "--nproc", "2"}, {"FAKE_0=touch:ready-0;letters:2000000", "FAKE_1=touch:ready-1;forever"},
          dir / "fifo");
  ASSERT_TRUE(job.ready({0, 1}));
  const pid_t writer = job.pids()[0];
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  job.signal(SIGINT);
  ASSERT_TRUE(eventually([&] { return is_gone(writer); }));
  job.signal(SIGINT);
  ASSERT_TRUE(eventually([&] { return is_gone(job.pid()); }));
  EXPECT_EQ(job.wait().code, 130);
  EXPECT_TRUE(job.folders().empty());
  ::close(reader);
}

TEST(CtrlZ, StopsTheJobAndNamesNoRank) {
  Job job({"train", "--nproc", "2"}, ranks_of(2, "", "wait:go"));
  ASSERT_TRUE(job.ready({0, 1}));
  const auto state = [](pid_t pid) {
    const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
    return stat.at(stat.rfind(") ") + 2);
  };
  const std::vector<pid_t> pids = job.pids();
  job.signal(SIGTSTP);
  for (pid_t pid : {job.pid(), pids[0], pids[1]}) ASSERT_TRUE(eventually([&] { return state(pid) == 'T'; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(3 * kHeartbeatMs));
  job.signal(SIGCONT);
  for (pid_t pid : {job.pid(), pids[0], pids[1]}) ASSERT_TRUE(eventually([&] { return state(pid) != 'T'; }));
  write_file(job.folders()[0] / "go", "");
  const Result result = job.wait();
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "") << "heartbeats of before are no news";
}

TEST(Launcher, KilledLeavesNoOrphan) {
  Job job({"train", "--nproc", "3"}, ranks_of(3, "ignore:15;ignore:2;ignore:1;", "forever"));
  ASSERT_TRUE(job.ready({0, 1, 2}));
  const std::vector<pid_t> pids = job.pids();
  for (pid_t pid : pids) ASSERT_FALSE(is_gone(pid));
  job.signal(SIGKILL);
  EXPECT_EQ(job.wait().code, -SIGKILL);
  EXPECT_TRUE(eventually([&] { return all_gone(pids); }));
}

TEST(Launcher, TheRanksAreNoPartOfItsGroup) {
  Job job({"train", "--nproc", "2"}, ranks_of(2, "", "wait:go"));
  ASSERT_TRUE(job.ready({0, 1}));
  for (pid_t pid : job.pids()) EXPECT_EQ(::getpgid(pid), pid);
  write_file(job.folders()[0] / "go", "");
  EXPECT_EQ(job.wait().code, 0);
}

}  // namespace
}  // namespace dsv3::test
