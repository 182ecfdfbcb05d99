// What happens to the others when a rank is in trouble, and where ranks meet.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "cli/ranks.h"

namespace dsv3::test {
namespace {

// A run that goes on until something happens to it, past its first steps.
std::unique_ptr<Job> running(const TempDir& dir, std::vector<std::string> more = {},
                             const char* ranks = "2") {
  std::vector<std::string> args = train(dir / "run", {"--parallel.ep=2", "--nproc", ranks}, 1000000);
  args.insert(args.end(), more.begin(), more.end());
  auto job = start(args);
  EXPECT_TRUE(eventually([&] { return count(read_file(dir / "run" / "metrics.jsonl"), "\n") >= 3; }))
      << job->err();
  return job;
}

// Where a rank is when something happens to it: its phase, or the collective that it is in.
struct Place {
  const char* phase;
  const char* operation;
};
void PrintTo(const Place& place, std::ostream* out) { *out << place.phase << " " << place.operation; }

class Faults : public testing::TestWithParam<Place> {
 protected:
  // Waits until rank 1 is at the place, as the board says.
  static bool at_place(const Job& job) {
    const RankBoard board = job.board();
    const int64_t until = monotonic_ms() + 60'000;
    while (monotonic_ms() < until) {
      const RankStatus status = board.status(1);
      if (status.phase == GetParam().phase &&
          (!*GetParam().operation || (status.in_collective && status.operation == GetParam().operation)))
        return true;
    }
    return false;
  }
};

TEST_P(Faults, AKilledRankEndsTheJobAndIsNamed) {
  TempDir dir;
  auto job = running(dir);
  const std::vector<pid_t> pids = job->pids();
  ASSERT_TRUE(at_place(*job));
  const int64_t killed = monotonic_ms();
  ::kill(pids[1], SIGKILL);
  const Result result = job->wait();
  EXPECT_LT(monotonic_ms() - killed, 5000);
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("rank 1 on "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("killed by SIGKILL"), std::string::npos) << result.err;
  for (pid_t pid : pids) EXPECT_TRUE(is_gone(pid));
}

TEST_P(Faults, AStoppedRankIsNamedAtOnce) {
  TempDir dir;
  auto job = running(dir);
  ASSERT_TRUE(at_place(*job));
  const int64_t stopped = monotonic_ms();
  ::kill(job->pids()[1], SIGSTOP);
  EXPECT_TRUE(job->err_has("rank 1 is stopped")) << job->err();
  EXPECT_LT(monotonic_ms() - stopped, 2 * kHeartbeatMs);
}

INSTANTIATE_TEST_SUITE_P(Ranks, Faults,
                         testing::Values(Place{"forward", ""}, Place{"backward", ""}, Place{"optimizer", ""},
                                         Place{"forward", "all_gather"}, Place{"forward", "all_to_all"},
                                         Place{"backward", "all_to_all"}));

// In the warning, in the error of each rank that waited for it, and in the last line.
TEST(Ranks, AStoppedRankIsNamedAndNotTheOnesThatWaitedForIt) {
  TempDir dir;
  auto job = running(dir, {"--parallel.timeout_s=3"}, "4");
  ::kill(job->pids()[3], SIGSTOP);
  const Result result = job->wait();
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(result.err.starts_with("dsv3: warning: rank 3 is stopped (SIGSTOP); the others w"))
      << result.err;
  std::istringstream lines(result.err.substr(result.err.find('\n') + 1));
  std::string line;
  for (const char* rank : {"0", "1", "2"}) {
    std::getline(lines, line);
    EXPECT_TRUE(line.starts_with(std::string("[rank ") + rank + "] dsv3: error: rank " + rank + ": "))
        << result.err;
    EXPECT_NE(line.find(" failed: missing rank 3 (stopped): "), std::string::npos) << result.err;
  }
  std::getline(lines, line);
  EXPECT_TRUE(line.starts_with("dsv3: error: rank 3 on " + host() + ": stopped by SIGSTOP in "))
      << result.err;
  EXPECT_NE(line.find("; the others waited for it in "), std::string::npos) << result.err;
  EXPECT_FALSE(std::getline(lines, line)) << result.err;
}

// Weights that take long enough to be read: 100 MB.
TEST(Ranks, ARankThatDiesOrStopsWhileItLoadsEndsTheJob) {
  const std::vector<std::string> wide = {"--model.hidden_size=512", "--model.moe_intermediate_size=1024"};
  TempDir dir;
  std::vector<std::string> first = train(dir / "first", wide, 1);
  first.push_back("--model.init=");
  ASSERT_EQ(dsv3(first).code, 0);
  for (const int signal : {SIGKILL, SIGSTOP}) {
    std::vector<std::string> args = train(dir / std::to_string(signal), wide, 1000000);
    for (const std::string& flag :
         {"--model.init=" + (dir / "first/hf").string(), std::string("--parallel.ep=2"),
          std::string("--parallel.timeout_s=3"), std::string("--nproc"), std::string("2")})
      args.push_back(flag);
    auto job = start(args);
    ASSERT_TRUE(
        eventually([&] { return !job->folders().empty() && fs::exists(job->folders()[0] / "board"); }));
    const RankBoard board = job->board();
    const int64_t until = monotonic_ms() + 60'000;
    while (board.status(1).phase != "load" && monotonic_ms() < until) continue;
    ASSERT_EQ(board.status(1).phase, "load") << job->err();
    ::kill(board.status(1).pid, signal);
    const Result result = job->wait();
    EXPECT_EQ(result.code, 1) << result.err;
    EXPECT_NE(result.err.find(signal == SIGKILL ? "rank 1 on " : "rank 1 is stopped"), std::string::npos)
        << result.err;
    EXPECT_FALSE(fs::exists(dir / std::to_string(signal) / "metrics.jsonl")) << "it was past its load";
  }
}

// A token that only one rank reads is the error of all: its text, its code, one line.
TEST(Ranks, ABadTokenOfOneRankIsTheErrorOfAll) {
  TempDir dir;
  std::string tokens = read_file(kText + ".bin");
  const size_t at = 2 * 300;  // of the second sequence of a later step
  tokens[at] = tokens[at + 1] = '\xff';
  write_file(dir / "text.bin", tokens);
  fs::copy(kText + ".idx", dir / "text.idx");
  const std::vector<std::string> args = train(
      dir / "run", {"--nproc", "2", "--data.shuffle=false", "--data.train=" + (dir / "text").string()}, 20);
  expect_failure(dsv3(args), ExitCode::content, {"text", "65535"});
}

TEST(Ranks, ASignalStopsAllAfterTheSameStep) {
  TempDir dir;
  auto job = running(dir);
  job->signal(SIGTERM);
  const Result result = job->wait();
  EXPECT_EQ(result.code, 75) << result.err;
  EXPECT_EQ(count(result.err, "stopped after step"), 1u) << result.err;
}

// Sockets of a process that listen on another address than 127.0.0.1 or ::1.
std::vector<std::string> open_listeners(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid);
  std::vector<std::string> found;
  for (const char* table : {"/net/tcp", "/net/tcp6"}) {
    std::ifstream in(proc + table);
    std::string line;
    std::getline(in, line);  // the header
    while (std::getline(in, line)) {
      std::istringstream words(line);
      std::string number, local, remote, state, skip, inode;
      words >> number >> local >> remote >> state >> skip >> skip >> skip >> skip >> skip >> inode;
      if (state != "0A" || local.starts_with("0100007F:")) continue;
      for (const auto& entry : fs::directory_iterator(proc + "/fd")) {
        std::error_code error;
        if (fs::read_symlink(entry.path(), error).string() == "socket:[" + inode + "]")
          found.push_back(local);
      }
    }
  }
  return found;
}

// Also where the environment names another interface, as clusters do.
TEST(Ranks, NoSocketListensOnAnotherAddress) {
  TempDir dir;
  ::setenv("GLOO_SOCKET_IFNAME", "eth0", 1);
  auto job = running(dir);
  ::unsetenv("GLOO_SOCKET_IFNAME");
  for (pid_t pid : job->pids()) EXPECT_EQ(open_listeners(pid), std::vector<std::string>{});
  job->signal(SIGTERM);
  job->wait();
}

// A port that nobody listens on right now.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

// What torchrun gives its processes, without torchrun.
std::vector<std::string> rank_env(int rank, int world, int port, const std::string& job) {
  return {"RANK=" + std::to_string(rank),
          "WORLD_SIZE=" + std::to_string(world),
          "LOCAL_RANK=" + std::to_string(rank),
          "LOCAL_WORLD_SIZE=" + std::to_string(world),
          "MASTER_ADDR=127.0.0.1",
          "OMP_NUM_THREADS=1",
          "MASTER_PORT=" + std::to_string(port),
          "TORCHELASTIC_RUN_ID=" + job};
}

Result rank_of(int rank, int world, int port, const std::vector<std::string>& args,
               const std::string& job = "none") {
  return dsv3(args, {.env = rank_env(rank, world, port, job)});
}

TEST(Ranks, MeetAtAnAddress) {
  TempDir dir;
  const int port = free_port();
  std::vector<std::string> args = train(dir / "run", {"--parallel.ep=2", "--parallel.timeout_s=60"});
  Result results[2];
  std::thread second([&] { results[1] = rank_of(1, 2, port, args); });
  results[0] = rank_of(0, 2, port, args);
  second.join();
  for (const Result& result : results) EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(metrics_of(dir / "run").size(), 3u);
  EXPECT_EQ(results[1].out, "");
}

TEST(Ranks, ARankThatDoesNotComeIsNamed) {
  TempDir dir;
  const int port = free_port();
  const Result result = rank_of(0, 2, port, train(dir / "run", {"--parallel.timeout_s=2"}));
  expect_failure(result, ExitCode::failed, {"127.0.0.1:" + std::to_string(port), "missing rank 1"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  expect_failure(rank_of(2, 2, port, train(dir / "run")), ExitCode::usage, {"RANK"});
  expect_failure(rank_of(0, 2, 65536, train(dir / "run")), ExitCode::usage, {"MASTER_PORT", "65536"});
}

// Something that knows no protocol at all comes to the address first, and stays.
TEST(Ranks, GarbageAtTheRendezvousDisturbsNobody) {
  TempDir dir;
  const int port = free_port();
  const std::vector<std::string> args = train(dir / "run", {"--parallel.timeout_s=30"});
  Result results[2];
  std::thread first([&] { results[0] = rank_of(0, 2, port, args); });
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = -1;
  EXPECT_TRUE(eventually([&] {
    if (fd >= 0) ::close(fd);
    fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }));
  std::string garbage(4096, '\xff');
  garbage.replace(0, 16, "GET / HTTP/1.1\r\n");
  EXPECT_GT(::send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
  results[1] = rank_of(1, 2, port, args);
  first.join();
  ::close(fd);
  for (const Result& result : results) EXPECT_EQ(result.code, 0) << result.err;
}

// Two jobs that were given one address: the layouts differ.
TEST(Ranks, AnotherJobAtTheSamePlaceIsSeen) {
  TempDir dir;
  const int port = free_port();
  Result results[2];
  std::thread second([&] {
    results[1] = rank_of(1, 2, port, train(dir / "b", {"--parallel.replicate=2", "--parallel.timeout_s=20"}));
  });
  results[0] = rank_of(0, 2, port, train(dir / "a", {"--parallel.timeout_s=20"}));
  second.join();
  for (const Result& result : results)
    expect_failure(result, ExitCode::failed, {"two jobs share this place"});
}

// And two whose layouts are the same: what torchrun calls them differs.
TEST(Ranks, ARankOfAnotherJobIsRefused) {
  TempDir dir;
  const int port = free_port();
  Result results[2];
  std::thread second(
      [&] { results[1] = rank_of(1, 2, port, train(dir / "b", {"--parallel.timeout_s=20"}), "second"); });
  results[0] = rank_of(0, 2, port, train(dir / "a", {"--parallel.timeout_s=20"}), "first");
  second.join();
  for (const Result& result : results)
    expect_failure(result, ExitCode::failed, {"job first", "job second", "two jobs share this place"});
  EXPECT_FALSE(fs::exists(dir / "a"));
  EXPECT_FALSE(fs::exists(dir / "b"));
}

TEST(Ranks, ARankThatComesTwiceIsSeen) {
  TempDir dir;
  const int port = free_port();
  const std::vector<std::string> args = train(dir / "run", {"--parallel.timeout_s=5"});
  Result results[3];
  std::thread zero([&] { results[0] = rank_of(0, 3, port, args); }),
      one([&] { results[1] = rank_of(1, 3, port, args); });
  results[2] = rank_of(1, 3, port, args);
  zero.join();
  one.join();
  const std::string errors = results[1].err + results[2].err;
  EXPECT_NE(errors.find("rank 1 came twice"), std::string::npos) << errors;
  for (const Result& result : results) EXPECT_EQ(result.code, 1) << result.err;
}

// Without --nproc nobody watches the ranks: who is left names the one that is gone, also when the store went
// with it.
TEST(Ranks, ARankThatDiesAtAnAddressIsNamedByTheOther) {
  for (const int victim : {0, 1}) {
    SCOPED_TRACE(victim);
    TempDir dir;
    const int port = free_port();
    const std::vector<std::string> args =
        train(dir / "run", {"--parallel.ep=2", "--parallel.timeout_s=10"}, 1000000);
    Result left;
    std::thread other([&] { left = rank_of(1 - victim, 2, port, args); });
    std::thread dies([&] {
      std::vector<std::string> command = {"-c", "echo $$ > " + (dir / "pid").string() + "; exec \"$@\"", "sh",
                                          dsv3_program().string()};
      command.insert(command.end(), args.begin(), args.end());
      const Result killed = run_program("/bin/sh", command, {.env = rank_env(victim, 2, port, "none")});
      EXPECT_EQ(killed.code, -SIGKILL);
    });
    EXPECT_TRUE(eventually([&] { return count(read_file(dir / "run" / "metrics.jsonl"), "\n") >= 3; }));
    ::kill(std::stoi(read_file(dir / "pid")), SIGKILL);
    other.join();
    dies.join();
    expect_failure(left, ExitCode::failed, {"in group", "missing rank " + std::to_string(victim)});
  }
}

// Two hosts: network namespaces that a veth pair joins. Needs the right to make them.
class TwoHosts : public testing::Test {
 protected:
  void SetUp() override {
    name_ = "dsv3-" + std::to_string(::getpid());
    const std::string a = name_ + "a", b = name_ + "b";
    // lo: a host reaches its own address through it.
    if (!run("ip netns add " + a + " && ip netns add " + b + " && ip link add veth0 netns " + a +
             " type veth peer name veth0 netns " + b + " && ip -n " + a +
             " addr add 10.88.0.1/24 dev veth0 && ip -n " + b +
             " addr add 10.88.0.2/24 dev veth0 && for n in " + a + " " + b +
             "; do ip -n $n link set lo up && ip -n $n link set veth0 up || exit 1; done"))
      GTEST_SKIP() << "network namespaces cannot be made here (iproute2, root)";
  }
  void TearDown() override { run("ip netns del " + name_ + "a; ip netns del " + name_ + "b"); }

  static bool run(const std::string& command) { return std::system((command + " 2>/dev/null").c_str()) == 0; }
  Result rank(int rank, std::vector<std::string> args) {
    std::vector<std::string> all = {"ip", "netns", "exec", name_ + (rank == 0 ? "a" : "b"),
                                    dsv3_program().string()};
    all.insert(all.end(), args.begin(), args.end());
    return run_program("/usr/bin/env", all,
                       {.env = {"RANK=" + std::to_string(rank), "WORLD_SIZE=2", "LOCAL_RANK=0",
                                "LOCAL_WORLD_SIZE=1", "MASTER_ADDR=10.88.0.1", "MASTER_PORT=29735",
                                "GLOO_SOCKET_IFNAME=veth0", "OMP_NUM_THREADS=1"}});
  }
  std::string name_;
};

TEST_F(TwoHosts, TrainTogether) {
  TempDir dir;
  const std::vector<std::string> args = train(dir / "run", {"--parallel.ep=2", "--parallel.timeout_s=30"});
  Result results[2];
  std::thread second([&] { results[1] = rank(1, args); });
  results[0] = rank(0, args);
  second.join();
  for (const Result& result : results) EXPECT_EQ(result.code, 0) << result.err;
  ASSERT_EQ(dsv3(train(dir / "here", {"--parallel.ep=2", "--nproc", "2"})).code, 0);
  EXPECT_EQ(metrics_of(dir / "run").size(), 3u);
  EXPECT_EQ(metrics_of(dir / "run"), metrics_of(dir / "here"));
  EXPECT_EQ(read_file(dir / "run/hf/model.safetensors"), read_file(dir / "here/hf/model.safetensors"));
}

TEST_F(TwoHosts, ACutLinkEndsBoth) {
  TempDir dir;
  const std::vector<std::string> args =
      train(dir / "run", {"--parallel.ep=2", "--parallel.timeout_s=3"}, 1000000);
  Result results[2];
  std::thread first([&] { results[0] = rank(0, args); }), second([&] { results[1] = rank(1, args); });
  EXPECT_TRUE(eventually([&] { return count(read_file(dir / "run" / "metrics.jsonl"), "\n") >= 3; }));
  EXPECT_TRUE(run("ip -n " + name_ + "a link set veth0 down"));
  first.join();
  second.join();
  for (const Result& result : results) {
    EXPECT_EQ(result.code, 1) << result.err;
    // The collective and its unit, and who is missing: the other one.
    const char* other = &result == &results[0] ? "missing rank 1" : "missing rank 0";
    for (const char* part : {" of ", "in group", other})
      EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  }
}

}  // namespace
}  // namespace dsv3::test
