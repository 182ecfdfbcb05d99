// prepare() that is killed, fails or is disturbed, and run again.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "data/texts.h"
#include "dsv3/base/file_lock.h"
#include "dsv3/data/prepare.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

constexpr int kBadLines = 24;

class PrepareRestart : public testing::Test {
 protected:
  // Inputs of all kinds, several jobs each; a bad line now and then.
  PrepareRestart() {
    fs::create_directories(dir_ / "in");
    std::string lines, text;
    for (int i = 0; i < 12'000; ++i) {
      lines +=
          i % 1000 == 990 ? "{]\n" : fmt::format("{{\"text\": \"{}\"}}\n", std::string(i % 97, 'a' + i % 26));
      text += fmt::format("word {}\n", i * 7919);
    }
    write_file(dir_ / "in/a.jsonl", lines);
    write_file(dir_ / "in/b.txt", text);
    write_file(dir_ / "in/c.md", "");
    write_file(dir_ / "in/d.jsonl.gz",
               gzip(lines.substr(0, lines.size() / 2)) + gzip(lines.substr(lines.size() / 2)));
    write_file(dir_ / "in/e.txt.zst", zstd(text));
    fs::create_directories(dir_ / "out");
    options_ = {.inputs = {dir_ / "in"}, .max_bad = kBadLines, .save_every_s = 0, .out = dir_ / "out/p"};
    options_.on_bad_line = [this](const std::string&) { ++told_; };
    options_.on_restart = [this](const std::string& line) { said_ += line + "\n"; };
  }

  // Every file of the output by name.
  std::vector<std::string> output() {
    std::vector<std::string> files;
    for (const std::string& name : names(dir_)) {
      if (name.starts_with("out/")) files.push_back(name + "\n" + read_file(dir_ / name));
    }
    return files;
  }
  // What an undisturbed command writes.
  std::vector<std::string> whole(const PrepareOptions& options) {
    prepare(options);
    const auto files = output();
    fs::remove_all(dir_ / "out");
    fs::create_directories(dir_ / "out");
    told_ = 0;
    said_.clear();
    return files;
  }
  // Runs it in a process that is killed when it tells the n-th bad line, or after microseconds; whether it
  // was.
  static bool killed(PrepareOptions options, int bad_line, useconds_t microseconds = 0) {
    const pid_t child = ::fork();
    if (child == 0) {
      options.on_bad_line = [&](const std::string&) {
        if (--bad_line == 0) ::raise(SIGKILL);
      };
      options.on_restart = {};
      prepare(options);
      ::_exit(0);
    }
    if (microseconds > 0) {
      ::usleep(microseconds);
      ::kill(child, SIGKILL);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status);
  }

  TempDir dir_;
  PrepareOptions options_;
  int told_ = 0;
  std::string said_;
};

TEST_F(PrepareRestart, GoesOnWhereItWasKilled) {
  const std::string tokenizer = std::string(DSV3_SOURCE_DIR) + "/tests/data/tokenizers/v3/tokenizer.json";
  for (const std::string& name : {std::string("byte"), tokenizer}) {
    options_.tokenizer = name;
    options_.eos = name == "byte" ? "" : "<|eos|>";
    options_.valid_fraction = name == "byte" ? 0.1 : 0;
    const auto expected = whole(options_);
    ASSERT_EQ(expected.size(), name == "byte" ? 6u : 3u);
    for (const int line : {1, 7, 13, 20, kBadLines}) {
      ASSERT_TRUE(killed(options_, line));
      options_.threads = 1 + line % 3;
      const PrepareSummary summary = prepare(options_);
      EXPECT_TRUE(output() == expected) << line;
      EXPECT_EQ(summary.bad_lines, kBadLines);
      EXPECT_GT(summary.earlier_bytes, line == 1 ? -1 : 0);
      EXPECT_LT(summary.earlier_bytes, summary.train.bytes + (summary.valid ? summary.valid->bytes : 0));
      EXPECT_EQ(summary.skipped_files, 1);
      EXPECT_EQ(summary.empty_documents, 2 * 124);
      // Lines of the job that it was in are told again, those before not.
      EXPECT_GE(told_, kBadLines - line + 1);
      EXPECT_LE(told_, kBadLines - line + 6);
      EXPECT_NE(said_.find("p.partial: goes on behind "), said_.npos) << said_;
      told_ = 0;
      said_.clear();
    }
    fs::remove_all(dir_ / "out");
    fs::create_directories(dir_ / "out");
  }
}

TEST_F(PrepareRestart, KilledAgainAndAgainAtAnyInstant) {
  options_.valid_fraction = 0.1;
  const auto start = std::chrono::steady_clock::now();
  const auto expected = whole(options_);
  const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
  uint64_t random = 7;
  int kills = 0, runs = 0;
  for (; kills < 24 && runs < 200; ++runs) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const double share = static_cast<double>(random >> 33) * 0x1p-31 * 0.6;
    kills += killed(options_, 0, static_cast<useconds_t>(1 + share * time.count()));
    // The names never hold a pair that is not whole.
    if (fs::exists(dir_ / "out/p_train.idx")) {
      EXPECT_EQ(IndexedDataset(dir_ / "out/p_train").num_documents(), 23730);
    }
  }
  EXPECT_EQ(kills, 24) << runs;
  prepare(options_);
  EXPECT_TRUE(output() == expected);
}

TEST_F(PrepareRestart, OtherInputsOrOptionsBeginAnew) {
  const auto changed = [&](const char* what, const std::function<void()>& change) {
    ASSERT_TRUE(killed(options_, 16)) << what;
    change();
    said_.clear();
    told_ = 0;
    prepare(options_);
    EXPECT_NE(said_.find("begun anew"), said_.npos) << what;
    const auto found = output();
    EXPECT_TRUE(whole(options_) == found) << what;
  };
  changed("time", [&] { fs::last_write_time(dir_ / "in/b.txt", fs::file_time_type::clock::now()); });
  changed("an input more", [&] { write_file(dir_ / "in/f.txt", "more"); });
  changed("format", [&] { options_.format = "jsonl", options_.max_bad = 40'000; });
  options_.format = "auto";
  options_.max_bad = kBadLines;
  changed("fraction", [&] { options_.valid_fraction = 0.2; });
  changed("order", [&] { options_.inputs = {dir_ / "in/d.jsonl.gz", dir_ / "in/a.jsonl"}; });
}

TEST_F(PrepareRestart, DamageOfWhatWasLeftBeginsAnew) {
  const auto expected = whole(options_);
  ASSERT_TRUE(killed(options_, 16));
  const fs::path left = dir_ / "out/p.partial", kept = dir_ / "kept";
  fs::copy(left, kept);
  const auto damaged = [&](const std::string& what, const std::function<void()>& damage) {
    fs::remove_all(dir_ / "out");
    fs::create_directories(dir_ / "out");
    fs::copy(kept, left);
    damage();
    said_.clear();
    prepare(options_);
    EXPECT_NE(said_.find("begun anew"), said_.npos) << what;
    EXPECT_TRUE(output() == expected) << what;
  };
  const std::string progress = read_file(kept / "progress");
  for (size_t i = 0; i < progress.size(); i += 11) {
    damaged(fmt::format("byte {}", i), [&] {
      std::string bad = progress;
      bad[i] = static_cast<char>(bad[i] ^ 1 << i % 8);
      write_file(left / "progress", bad);
    });
  }
  damaged("short", [&] { write_file(left / "progress", progress.substr(1)); });
  damaged("long", [&] { write_file(left / "progress", progress + "x"); });
  damaged("a folder", [&] {
    fs::remove(left / "progress");
    fs::create_directories(left / "progress/x");
  });
  for (const char* file : {"train.bin", "train.idx"}) {
    damaged(file, [&] { fs::resize_file(left / file, fs::file_size(left / file) / 4); });
    damaged(file, [&] { fs::remove(left / file); });
  }
}

TEST_F(PrepareRestart, MoreBadLinesMayBeAllowed) {
  const auto expected = whole(options_);
  options_.max_bad = 15;
  EXPECT_THROW(prepare(options_), InputError);
  EXPECT_TRUE(fs::exists(dir_ / "out/p.partial/progress"));
  options_.max_bad = 5;
  test::expect_error(ExitCode::usage, {"--max-bad: 5, expected at least"}, [&] { prepare(options_); });
  options_.max_bad = kBadLines;
  said_.clear();
  prepare(options_);
  EXPECT_NE(said_.find("goes on"), said_.npos);
  EXPECT_TRUE(output() == expected);
}

TEST_F(PrepareRestart, NotTwoAtOnce) {
  fs::create_directories(dir_ / "out/p.partial");
  {
    const FileLock other(dir_ / "out/p.partial/lock", FileLock::When::now);
    ASSERT_TRUE(other.held());
    test::expect_error(ExitCode::usage, {"--out: another process is writing ", "out/p"},
                       [&] { prepare(options_); });
  }
  write_file(dir_ / "out/p.partial/mine", "stays");
  prepare(options_);
  EXPECT_EQ(names(dir_).size(), 6u + 1 + 3 + 2);  // in/, out/
}

TEST_F(PrepareRestart, NeitherTheFolderNorALinkInItIsTrusted) {
  write_file(dir_ / "mine", "stays");
  fs::create_directories(dir_ / "out/p.partial");
  fs::create_symlink(dir_ / "mine", dir_ / "out/p.partial/train.bin");
  EXPECT_THROW(prepare(options_), RunError);
  EXPECT_EQ(read_file(dir_ / "mine"), "stays");
  EXPECT_FALSE(fs::exists(dir_ / "out/p.partial"));
}

}  // namespace
}  // namespace dsv3
