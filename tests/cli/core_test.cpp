// bin/dsv3 itself: help, version, choosing a command, starting the engine, signals.
#include <algorithm>

#include "cli/run.h"

namespace dsv3::test {
namespace {

TEST(Help, ListsTheCommands) {
  for (const char* flag : {"--help", "-h", "help"}) {
    const Result result = dsv3({flag});
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.err, "");
    for (const char* command :
         {"train", "eval", "generate", "trace", "prepare", "tokenizer", "config", "doctor"}) {
      EXPECT_NE(result.out.find(std::string("  ") + command + " "), std::string::npos) << command;
    }
  }
}
TEST(Help, StartsInTwentyMilliseconds) {
  double best = 1;  // of several: the machine may be busy with something else
  for (int i = 0; i < 20; ++i) best = std::min(best, dsv3({"--help"}).seconds);
  EXPECT_LT(best, has_sanitizers() ? 1.0 : 0.020);
}
TEST(Help, WithoutACommandIsAUsageError) {
  const Result result = dsv3({});
  EXPECT_EQ(result.code, 2);
  EXPECT_NE(result.out.find("usage:"), std::string::npos);
}
TEST(Help, OfACommand) {
  const Result prepare = dsv3({"prepare", "--help"});
  EXPECT_EQ(prepare.code, 0);
  EXPECT_NE(prepare.out.find("--out"), std::string::npos);
  const Result config = dsv3({"config", "--help"});
  EXPECT_NE(config.out.find("--optim.lr"), std::string::npos);
}
TEST(Help, HasNoColours) {
  for (const char* setting : {"NO_COLOR=1", "TERM=xterm-256color"}) {
    EXPECT_EQ(dsv3({"--help"}, {.env = {setting}}).out.find('\x1b'), std::string::npos);
  }
}

TEST(Version, IsOneLine) {
  const Result result = dsv3({"--version"});
  EXPECT_EQ(result.code, 0);
  EXPECT_TRUE(result.out.starts_with("dsv3 "));
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1);
}

TEST(UnknownCommand, NamesTheNearest) {
  expect_failure(dsv3({"trian"}), ExitCode::usage, {"trian: unknown command", "did you mean train?"});
  expect_failure(dsv3({"--nproc", "2"}), ExitCode::usage, {"--nproc: unknown flag"});
  expect_failure(dsv3({"a\nb\x1b[31m"}), ExitCode::usage, {"a\\x0ab\\x1b[31m"});
}

TEST(Output, ThatCannotBeWrittenIsAFailure) {
  expect_failure(dsv3({"--help"}, {.out_to = "/dev/full"}), ExitCode::failed,
                 {"standard output", "No space"});
  EXPECT_EQ(dsv3({"nonsense"}, {.err_to = "/dev/full"}).code, static_cast<int>(ExitCode::usage));
}

TEST(LogLevel, IsCheckedAndDebugAddsTheTrace) {
  expect_failure(dsv3({"--log-level", "loud", "config"}), ExitCode::usage,
                 {"--log-level: loud", "error|warn|info|debug"});
  expect_failure(dsv3({"config", "--log-level"}), ExitCode::usage, {"--log-level: needs a value"});
  expect_failure(dsv3({"--log-level=info", "config", "show", "none.toml"}), ExitCode::usage, {"none.toml"});
  const Result debug = dsv3({"config", "show", "none.toml", "--log-level", "debug"});
  EXPECT_EQ(debug.code, 2);
  EXPECT_GT(std::count(debug.err.begin(), debug.err.end(), '\n'), 3);
}

// A prefix with a copy of the program and an engine that tells how it was called.
class Engine : public testing::Test {
 protected:
  Engine() {
    std::filesystem::create_directories(dir_ / "bin");
    std::filesystem::create_directories(dir_ / "libexec/dsv3");
    std::filesystem::copy_file(dsv3_program(), dir_ / "bin/dsv3");
  }
  void install(std::string_view script) {
    const auto path = write_file(dir_ / "libexec/dsv3/dsv3-engine", script);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  Result run(const std::vector<std::string>& args, const RunOptions& options = {}) {
    return run_program(dir_ / "bin/dsv3", args, options);
  }
  TempDir dir_;
};

TEST_F(Engine, GetsTheArgumentsAndGivesTheExitCode) {
  install("#!/bin/sh\nfor a; do echo \"<$a>\"; done\necho \"level $DSV3_LOG_LEVEL\"\nexit 75\n");
  const Result result = run({"train", "a b.toml", "--optim.lr=1", "--log-level", "debug"});
  EXPECT_EQ(result.code, 75);
  EXPECT_EQ(result.out, "<train>\n<a b.toml>\n<--optim.lr=1>\n<--log-level>\n<debug>\nlevel debug\n");
}
TEST_F(Engine, RunsEveryOtherCommand) {
  install("#!/bin/sh\necho $1\n");
  for (const char* command : {"train", "eval", "generate", "trace", "doctor"}) {
    EXPECT_EQ(run({command, "--help"}).out, std::string(command) + "\n");
  }
}
TEST_F(Engine, IsFoundThroughALink) {
  install("#!/bin/sh\necho here\n");
  TempDir elsewhere;
  std::filesystem::create_symlink(dir_ / "bin/dsv3", elsewhere / "dsv3");
  EXPECT_EQ(run_program(elsewhere / "dsv3", {"doctor"}).out, "here\n");
}
TEST_F(Engine, MissingIsNamed) {
  expect_failure(run({"train", "x"}), ExitCode::failed, {"libexec/dsv3/dsv3-engine", "No such file"});
}
TEST_F(Engine, KeepsTheDefaultSignals) {
  install("#!/bin/sh\nkill -TERM $$\nsleep 5\n");
  EXPECT_EQ(run({"train", "x"}).code, -SIGTERM);
}

}  // namespace
}  // namespace dsv3::test
