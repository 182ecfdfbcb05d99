// dsv3 train --nproc N with an engine that obeys the test: flags, environment, output, codes, the private
// folder.
#include <sys/stat.h>

#include "launch/job.h"

namespace dsv3::test {
namespace {

// Each rank's whole line of rank 0's stdout is one rank's environment: other ranks are read from stderr.
TEST(Launch, GivesEachRankItsEnvironment) {
  const std::string steps =
      "env:RANK;env:WORLD_SIZE;env:LOCAL_RANK;env:LOCAL_WORLD_SIZE;env:DSV3_TERMINAL;stdin;args";
  const Result result =
      run_job({"train", "a b.toml", "--nproc", "2", "--optim.lr=1"}, {"FAKE=" + steps, "DSV3_TERMINAL=1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out,
            "RANK=0\nWORLD_SIZE=2\nLOCAL_RANK=0\nLOCAL_WORLD_SIZE=2\nDSV3_TERMINAL=\n/dev/null\n"
            "<train><a b.toml><--optim.lr=1>");
  EXPECT_EQ(result.err,
            "[rank 1] RANK=1\n[rank 1] WORLD_SIZE=2\n[rank 1] LOCAL_RANK=1\n[rank 1] LOCAL_WORLD_SIZE=2\n"
            "[rank 1] DSV3_TERMINAL=\n[rank 1] /dev/null\n[rank 1] <train><a b.toml><--optim.lr=1>\n");
}

TEST(Launch, SharesTheProcessorsUnlessTheUserDoes) {
  cpu_set_t set;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
  const int usable = CPU_COUNT(&set);
  for (int ranks : {2, 3}) {
    const Result result =
        run_job({"train", "--nproc=" + std::to_string(ranks)}, {"FAKE_0=env:OMP_NUM_THREADS"});
    EXPECT_EQ(result.out, "OMP_NUM_THREADS=" + std::to_string(std::max(1, usable / ranks)) + "\n");
  }
  const Result own = run_job({"train", "--nproc=2"}, {"FAKE_0=env:OMP_NUM_THREADS", "OMP_NUM_THREADS=7"});
  EXPECT_EQ(own.out, "OMP_NUM_THREADS=7\n");
}

TEST(Launch, GivesEachRankTheSignalsOfAFreshProgram) {
  EXPECT_EQ(run_job({"train", "--nproc", "2"}, {"FAKE_0=mask"}).out, "SIGPIPE default, SIGTERM open\n");
}

TEST(Launch, StartsEightRanks) {
  const Result result = run_job({"train", "--nproc", "8"}, {"FAKE=err:here\\n"});
  EXPECT_EQ(result.code, 0);
  for (int rank = 0; rank < 8; ++rank)
    EXPECT_TRUE(has(result.err, "[rank " + std::to_string(rank) + "] here\n"));
  EXPECT_EQ(count(result.err, "\n"), 8u) << result.err;
}

TEST(Launch, OneRankIsNoLaunch) {
  for (const std::vector<std::string>& args : {std::vector<std::string>{"train", "x", "--nproc", "1"},
                                               {"train", "x", "--nproc=1"},
                                               {"train", "x"}}) {
    const Result result = run_job(args, {"FAKE=env:RANK;args;err:plain\\n;exit:3"});
    EXPECT_EQ(result.code, 3);
    EXPECT_EQ(result.out, "RANK=\n<train><x>");
    EXPECT_EQ(result.err, "plain\n");
  }
  // A rank of another launcher that says it is one process asks for nothing more.
  EXPECT_EQ(run_job({"train", "--nproc", "1"}, {"FAKE=exit:0", "RANK=1", "WORLD_SIZE=2"}).code, 0);
}

TEST(Launch, HelpStartsNoRanks) {
  for (const char* flag : {"--help", "-h"}) {
    const Result result = run_job({"train", "--nproc", "4", flag}, {"FAKE=env:RANK;args", "WORLD_SIZE=2"});
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.out, std::string("RANK=\n<train><") + flag + ">");
    EXPECT_EQ(result.err, "");
  }
}

TEST(Nproc, IsChecked) {
  for (const char* value : {"0", "-1", "1025", "two", "2x", "", "2.0", "99999999999999999999", "+2"}) {
    const Result result = run_job({"train", std::string("--nproc=") + value}, {"FAKE=out:started"});
    expect_failure(result, ExitCode::usage, {"--nproc: " + std::string(value) + ", expected 1 to 1024"});
    EXPECT_EQ(result.out, "");
  }
  expect_failure(run_job({"train", "--nproc"}, {}), ExitCode::usage, {"--nproc: needs a value"});
  for (const char* again : {"--nproc=2", "--nproc=3"})
    expect_failure(run_job({"train", "--nproc", "2", again}, {}), ExitCode::usage,
                   {"--nproc: is given twice"});
}

TEST(Nproc, IsRefusedInsideAnotherLauncher) {
  for (const char* name : {"WORLD_SIZE", "RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "TORCHELASTIC_RUN_ID",
                           "SLURM_STEP_NUM_TASKS"}) {
    const Result result = run_job({"train", "--nproc", "2"}, {"FAKE=out:started", std::string(name) + "=4"});
    expect_failure(result, ExitCode::usage, {"--nproc 2: " + std::string(name) + "=4", "leave the flag out"});
    EXPECT_EQ(result.out, "");
  }
  EXPECT_EQ(run_job({"train", "--nproc", "2"}, {"SLURM_STEP_NUM_TASKS=1", "WORLD_SIZE="}).code, 0);
}

// One rank would read it and the others find nothing, or each of them a part.
TEST(Nproc, RefusesAFileThatCanBeReadOnce) {
  TempDir dir;
  const std::string fifo = dir / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& name : {std::string("/dev/stdin"), std::string("/dev/fd/0"), fifo}) {
    for (const std::string& arg : {name, "--data.tokenizer=" + name}) {
      const Result result = run_job({"train", arg, "--nproc", "2"}, {"FAKE=out:started"});
      expect_failure(result, ExitCode::usage, {name + ": can be read once, and each of 2 ranks reads it ("});
      EXPECT_EQ(result.out, "");
    }
    EXPECT_EQ(run_job({"train", name, "--nproc", "1"}, {"FAKE=args"}).out, "<train><" + name + ">");
  }
}

TEST(Launch, ForgetsTheNprocOfOtherCommands) {  // they say themselves that they have no such flag
  EXPECT_EQ(run_job({"trace", "--nproc", "2"}, {"FAKE=env:RANK;args"}).out, "RANK=\n<trace><--nproc><2>");
}

TEST(Launch, AnEngineThatCannotStartIsNamedOnce) {
  expect_failure(run_job({"train", "--nproc", "3"}, {"DSV3_ENGINE=/none/dsv3-engine"}), ExitCode::failed,
                 {"/none/dsv3-engine: cannot be started: No such file"});
}

TEST(Launch, NeedsAPlaceForItsFolder) {
  expect_failure(run_job({"train", "--nproc", "2"}, {"TMPDIR=/none", "FAKE=out:started"}), ExitCode::failed,
                 {"/none: no folder can be made there", "TMPDIR"});
}

TEST(RunFolder, IsPrivateAndGoesWithTheJob) {
  Job job({"train", "--nproc", "2"},
          {"FAKE_0=env:DSV3_RUN_FOLDER;touch:ready-0;wait:go", "FAKE_1=touch:ready-1;wait:go"});
  ASSERT_TRUE(job.ready({0, 1}));
  ASSERT_EQ(job.folders().size(), 1u);
  struct stat status {};
  ASSERT_EQ(::stat(job.folders()[0].c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  EXPECT_TRUE(job.out_has("DSV3_RUN_FOLDER=" + job.folders()[0].string() + "\n"));
  EXPECT_EQ(job.board().ranks(), 2);
  write_file(job.folders()[0] / "go", "");
  EXPECT_EQ(job.wait().code, 0);
  EXPECT_TRUE(job.folders().empty());
}

TEST(Output, OfRankZeroPassesAtOnceAndUntouched) {
  Job job({"train", "--nproc", "2"}, {"FAKE_0=out:{\"a\":;touch:ready-0;wait:go;out: 1}\\n\\n;err:e\\n",
                                      "FAKE_1=out:from one\\nunfinished"});
  ASSERT_TRUE(job.out_has("{\"a\":")) << "half a line waits for its newline";
  ASSERT_TRUE(job.ready({0}));
  write_file(job.folders()[0] / "go", "");
  const Result result = job.wait();
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, "{\"a\": 1}\n\n");
  for (const char* line : {"[rank 0] e\n", "[rank 1] from one\n", "[rank 1] unfinished\n"})
    EXPECT_TRUE(has(result.err, line)) << result.err;
  EXPECT_EQ(count(result.err, "\n"), 3u) << result.err;
}

TEST(Output, LinesThatNeverEnd) {
  const Result result = run_job({"train", "--nproc", "2"}, {"FAKE_1=many:65536;err:tail\\nrest\\n"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(count(result.err, "x"), 65536u);
  EXPECT_EQ(count(result.err, "[rank 1] x"), 4u);
  EXPECT_TRUE(result.err.ends_with("[rank 1] tail\n[rank 1] rest\n"));
}

TEST(Output, OfARankThatClosesItsStreams) {
  const Result result =
      run_job({"train", "--nproc", "2"},
              {"FAKE_0=out:a;wait:closed;out:b", "FAKE_1=err:last\\n;close:2;close:1;touch:closed"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, "ab");
  EXPECT_EQ(result.err, "[rank 1] last\n");
}

TEST(Output, IsNotWaitedForWhenTheRanksHaveEnded) {
  const Result result = run_job({"train", "--nproc", "2"}, {"FAKE=helper;err:last\\n"});
  EXPECT_EQ(result.err.size(), std::string_view("[rank R] last\n").size() * 2) << result.err;
  EXPECT_LT(result.seconds, 20);
}

// A pipe of 64 KB that is not read for a while.
TEST(Output, WaitsForASlowReader) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  const int reader = ::open((dir / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  Job job({"train", "--nproc", "2"}, {"FAKE_0=letters:2000000", "FAKE_1=touch:ready-1"}, dir / "fifo");
  ASSERT_TRUE(job.ready({1}));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  std::string text;
  EXPECT_TRUE(eventually([&] {
    char bytes[1 << 16];
    ssize_t n = 0;
    while ((n = ::read(reader, bytes, sizeof(bytes))) > 0) text.append(bytes, static_cast<size_t>(n));
    return n == 0;
  }));
  ASSERT_EQ(text.size(), 2'000'000u);
  for (size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], static_cast<char>('a' + i % 26)) << i;
  EXPECT_EQ(job.wait().code, 0);
  ::close(reader);
}

TEST(Output, RankZeroLearnsThatItIsATerminal) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_TRUE(::grantpt(terminal) == 0 && ::unlockpt(terminal) == 0);
  Job job({"train", "--nproc", "2"}, {"FAKE=env:DSV3_TERMINAL"}, ::ptsname(terminal));
  char text[100] = {};
  ASSERT_GT(::read(terminal, text, sizeof(text) - 1), 0);
  EXPECT_STREQ(text, "DSV3_TERMINAL=1\r\n");
  EXPECT_EQ(job.wait().err, "[rank 1] DSV3_TERMINAL=\n");
  ::close(terminal);
}

TEST(Output, ThatCannotBeWrittenEndsTheJob) {
  Job job({"train", "--nproc", "2"}, {"FAKE_0=out:lost;forever", "FAKE_1=forever"}, "/dev/full");
  const Result result = job.wait();
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err, "dsv3: error: standard output: No space left on device\n");
}

TEST(ExitCode, IsTheRanksCommonOne) {
  for (int code : {75, 130}) {
    const Result result = run_job({"train", "--nproc", "4"}, {"FAKE=exit:" + std::to_string(code)});
    EXPECT_EQ(result.code, code);
    EXPECT_EQ(result.err, "");
  }
  // Ranks that are done while others go on are no failure.
  EXPECT_EQ(run_job({"train", "--nproc", "2"}, {"FAKE_0=exit:0", "FAKE_1=sleep:2500;out:x\\n"}).err,
            "[rank 1] x\n");
}

TEST(ExitCode, AnErrorOfAllRanksIsSaidOnce) {
  for (int code : {2, 3, 4}) {
    const Result result =
        run_job({"train", "--nproc", "4"},
                {"FAKE=err:dsv3: error: data/x.bin: no such file (make it)\\n;exit:" + std::to_string(code)});
    expect_failure(result, static_cast<ExitCode>(code), {});
    EXPECT_EQ(result.err, "dsv3: error: data/x.bin: no such file (make it)\n");
  }
}

TEST(ExitCode, DifferentErrorsAreSaidByRank) {
  const std::string first = "err:note\\ndsv3: error: a: b\\n;phase:load;touch:failed;exit:3";
  const Result result =
      run_job({"train", "--nproc", "3"},
              {"FAKE=wait:failed;sleep:700;err:dsv3: error: peer: gone\\n;exit:1", "FAKE_1=" + first});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err,
            "[rank 1] note\n[rank 0] dsv3: error: peer: gone\n[rank 2] dsv3: error: peer: gone\n"
            "dsv3: error: rank 1 on " +
                host() + ": a: b\n");
}

// The others fail in the collective to which it does not come, before or after its own end is noticed.
TEST(ExitCode, OfOneRankWhoseErrorTheOthersFeel) {
  const std::string waits = "phase:load;enter:all_reduce,agreement;";
  const std::string feels = "err:dsv3: error: all_reduce: Connection closed by peer\\n;exit:1";
  const std::string fails =
      "phase:load;err:dsv3: error: shard 2: is damaged (copy it again)\\n;touch:closed;";
  for (const std::string& end : {std::string("exit:3"), std::string("sleep:900;exit:3")}) {
    const Result result = run_job({"train", "--nproc", "3"},
                                  {"FAKE=" + waits + "wait:closed;" + feels, "FAKE_2=" + fails + end});
    expect_failure(result, ExitCode::content, {});
    EXPECT_EQ(result.err, "dsv3: error: rank 2 on " + host() + ": shard 2: is damaged (copy it again)\n");
  }
}

// A rank that left in peace is no reason to be content with those that needed it.
TEST(ExitCode, OfRanksThatWaitForOneThatIsDone) {
  const Result result = run_job(
      {"train", "--nproc", "2"},
      {"FAKE_0=phase:forward;exit:0", "FAKE_1=enter:all_gather,block 3;err:dsv3: error: closed\\n;exit:1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err,
            "[rank 1] dsv3: error: closed\ndsv3: error: rank 0 on " + host() +
                ": ended with code 0 in forward; the others waited for it in all_gather of block 3\n");
}

TEST(ExitCode, OfOneRankWhileTheOthersWaitForIt) {
  const Result result = run_job({"train", "--nproc", "3"},
                                {"FAKE=forever", "FAKE_2=err:dsv3: error: shard 2: is damaged\\n;exit:3"});
  EXPECT_EQ(result.code, 3);
  EXPECT_EQ(result.err, "dsv3: error: rank 2 on " + host() + ": shard 2: is damaged\n");
}

}  // namespace
}  // namespace dsv3::test
