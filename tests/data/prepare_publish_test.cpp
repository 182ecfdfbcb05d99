// What stands under the output's names when prepare() fails or dies at its end: the older files or the new
// ones, never some of both.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "data/texts.h"
#include "dsv3/data/prepare.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

class PreparePublishes : public testing::Test {
 protected:
  // An older output of 3 documents and a text of 500 for the next one, whose held-out files are the larger.
  PreparePublishes() {
    write_file(dir_ / "a.jsonl",
               "{\"text\": \"older one\"}\n{\"text\": \"older two\"}\n{\"text\": \"three\"}\n");
    options_ = {.inputs = {dir_ / "a.jsonl"}, .out = dir_ / "out/p", .valid_fraction = 0.8};
    options_.on_restart = [this](const std::string& line) { said_ += line + "\n"; };
    prepare(options_);
    older_ = output();
    std::string lines;
    for (int i = 0; i < 500; ++i) lines += fmt::format("{{\"text\": \"document {}\"}}\n", i * 7919);
    write_file(dir_ / "b.jsonl", lines);
    options_.inputs = {dir_ / "b.jsonl"};
    PrepareOptions elsewhere = options_;
    elsewhere.out = dir_ / "new/p";
    prepare(elsewhere);
    newer_ = output("new/");
  }

  // Every file by name, with its bytes.
  std::vector<std::string> output(const std::string& folder = "out/") {
    std::vector<std::string> files;
    for (const std::string& name : names(dir_)) {
      if (name.starts_with(folder) && fs::is_regular_file(dir_ / name) && name.find(".partial/") == name.npos)
        files.push_back(name.substr(folder.size()) + "\n" + read_file(dir_ / name));
    }
    return files;
  }
  // Whether it failed with no file longer than so many bytes.
  bool fails_within(uint64_t bytes) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit = {bytes, bytes};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      try {
        prepare(options_);
      } catch (const RunError&) {
        ::_exit(7);
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7)) << status;
    return WEXITSTATUS(status) == 7;
  }

  TempDir dir_;
  PrepareOptions options_;
  std::vector<std::string> older_, newer_;
  std::string said_;
};

TEST_F(PreparePublishes, NothingWhenTheDiskIsFull) {
  uint64_t largest = 0;
  std::vector<uint64_t> limits = {0, 100, 2034, 2035};  // 2034: .idx without what comes at the end
  for (const auto& file : fs::directory_iterator(dir_ / "new")) {
    largest = std::max<uint64_t>(largest, file.file_size());
    limits.push_back(file.file_size() - 1);
  }
  for (uint64_t limit = 150; limit < largest; limit += largest / 17) limits.push_back(limit);
  for (const bool recorded : {false, true}) {
    options_.save_every_s = recorded ? 0 : 30;
    for (const uint64_t limit : limits) {
      ASSERT_TRUE(fails_within(limit)) << limit;
      ASSERT_EQ(output() == older_, true) << limit;
    }
  }
  EXPECT_FALSE(fails_within(largest));
  EXPECT_TRUE(output() == newer_);
}

// What is in the way of a file's name stops it there, as a kill would.
TEST_F(PreparePublishes, TheRestWhenItDiedBetweenTwoNames) {
  for (const bool split : {true, false}) {
    options_.valid_fraction = split ? 0.8 : 0;
    fs::remove_all(dir_ / "out");
    prepare(options_);
    const auto expected = output();
    for (const std::string& part :
         split ? std::vector<std::string>{"p_train", "p_valid"} : std::vector<std::string>{"p"}) {
      for (const char* ending : {".json", ".idx", ".bin"}) {
        SCOPED_TRACE(part + ending);
        fs::remove_all(dir_ / "out");
        const fs::path obstacle = dir_ / "out" / (part + ending);
        fs::create_directories(obstacle / "x");
        EXPECT_THROW(prepare(options_), RunError);
        fs::remove_all(obstacle);
        said_.clear();
        const PrepareSummary summary = prepare(options_);
        EXPECT_NE(said_.find("goes on behind 500 documents, which are all"), said_.npos) << said_;
        EXPECT_TRUE(output() == expected);
        EXPECT_FALSE(fs::exists(dir_ / "out/p.partial"));
        EXPECT_EQ(summary.train.documents, 500);
        EXPECT_EQ(summary.earlier_bytes, summary.train.bytes + (split ? summary.valid->bytes : 0));
        EXPECT_EQ(summary.train.prefix, dir_ / "out" / (split ? "p_train" : "p"));
      }
    }
  }
}

TEST_F(PreparePublishes, AnewWhenAFileIsMissingThen) {
  const fs::path obstacle = dir_ / "out/p_valid.bin";
  const auto died = [&] {
    fs::remove(obstacle);
    fs::create_directories(obstacle / "x");
    EXPECT_THROW(prepare(options_), RunError);
    fs::remove_all(obstacle);
    said_.clear();
  };
  for (const char* file : {"p.partial/valid.idx", "p_train.bin", "p_train.idx"}) {
    died();
    ASSERT_TRUE(fs::remove(dir_ / "out" / file)) << file;
    prepare(options_);
    EXPECT_NE(said_.find("begun anew"), said_.npos) << file;
    EXPECT_TRUE(output() == newer_) << file;
  }
  died();
  options_.max_bad = -1;
  test::expect_error(ExitCode::usage, {"--max-bad"}, [&] { prepare(options_); });
}

}  // namespace
}  // namespace dsv3
