// What keeps a checkpoint from being looked at says nothing about it: the run ends and no older one is taken.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "checkpoint/calls.h"
#include "checkpoint/two_checkpoints.h"
#include "dsv3/convert/checkpoint.h"
#include "support/ranks.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

class NotLookedAt : public test::TwoCheckpoints {
 protected:
  ~NotLookedAt() override { test::pread_error = nullptr; }

  // resume() ends with an error of the run, not of the checkpoint.
  void expect_run_error(std::string_view part) {
    warnings.clear();
    test::expect_error(ExitCode::failed, {part}, [&] { resume_now(); });
    EXPECT_TRUE(warnings.empty()) << warnings[0];
  }
};

bool is_of(int fd, const fs::path& path) {
  std::error_code error;
  return fs::read_symlink("/proc/self/fd/" + std::to_string(fd), error) == fs::canonical(path);
}

// As a user whom modes of files bind.
class AnotherUser {
 public:
  AnotherUser() : before_(::geteuid()) {
    if (before_ == 0 && ::seteuid(65534) != 0) throw std::runtime_error("seteuid");
  }
  ~AnotherUser() { (void)!::seteuid(before_); }

 private:
  uid_t before_;
};

class FewDescriptors {
 public:
  // `more` than there are open ones.
  explicit FewDescriptors(int more) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int lowest = ::dup(STDIN_FILENO);
    ::close(lowest);
    const rlimit few = {static_cast<rlim_t>(lowest + more), before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(NotLookedAt, ABadSectorIsDamage) {
  test::pread_error = [&](int fd) { return is_of(fd, newest() / "__0_0.distcp") ? EIO : 0; };
  EXPECT_EQ(resume_now()->train.step, 1);
  ASSERT_EQ(warnings.size(), 1u);
  for (const char* part : {"step-2", "__0_0.distcp", "Input/output error"})
    EXPECT_NE(warnings[0].find(part), std::string::npos) << warnings[0];
}

TEST_F(NotLookedAt, OtherFailuresOfAReadAreNone) {
  test::pread_error = [&](int fd) { return is_of(fd, newest() / "__0_0.distcp") ? ENOMEM : 0; };
  expect_run_error("Cannot allocate memory");
}

TEST_F(NotLookedAt, ForWantOfDescriptors) {
  std::optional<Resumed> resumed;
  int more = 0;
  for (; !resumed && more < 32; ++more) {
    SCOPED_TRACE(more);
    const FewDescriptors few(more);
    try {
      resumed = resume_now();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::failed) << error.what();
    }
    ASSERT_TRUE(warnings.empty()) << warnings[0];
  }
  EXPECT_GT(more, 2);  // first for the folder of checkpoints, then for the files of one
  EXPECT_EQ(resumed->train.step, 2);
}

TEST_F(NotLookedAt, ForWantOfPermission) {
  fs::permissions(dir.path(), fs::perms(0755));
  for (const fs::path& path : {newest() / "__0_0.distcp", newest() / ".metadata", newest() / "manifest.json",
                               newest(), newest().parent_path()}) {
    SCOPED_TRACE(path);
    const fs::perms before = fs::status(path).permissions();
    fs::permissions(path, fs::perms::none);
    {
      const AnotherUser user;
      expect_run_error("Permission denied");
    }
    fs::permissions(path, before);
  }
  EXPECT_EQ(resume_now()->train.step, 2);
}

// Of several ranks any exception becomes an error of all of them.
TEST_F(NotLookedAt, ForWantOfMemoryOfOneOfTwoRanks) {
  test::pread_error = [&](int fd) -> int {
    if (is_of(fd, newest() / "__0_0.distcp")) throw std::bad_alloc();
    return 0;
  };
  test::run_ranks({1, 2, 1}, [&](const Mesh& mesh) {
    test::Training two(run, mesh);
    std::string said;
    try {
      resume(two.model, two.optimizer, run, [&](const std::string& line) { said += line; });
      ADD_FAILURE() << "resumed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::failed) << error.what();
    }
    EXPECT_EQ(said, "");
  });
}

// Rank 0 alone lists the checkpoints; the others don't wait for it.
TEST_F(NotLookedAt, AnErrorOfRankZeroIsThatOfAll) {
  const fs::path folder = newest().parent_path();
  fs::remove_all(folder);
  fs::create_symlink(folder, folder);
  test::run_ranks({1, 2, 1}, [&](const Mesh& mesh) {
    test::Training two(run, mesh);
    try {
      resume(two.model, two.optimizer, run, [](const std::string&) {});
      ADD_FAILURE() << "resumed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::failed) << error.what();
      EXPECT_NE(std::string(error.what()).find("checkpoints"), std::string::npos) << error.what();
    }
  });
}

// A checkpoint gets its name between the looks of two ranks.
TEST(AgreedSteps, AreWhatRankZeroSees) {
  test::run_ranks({1, 2, 1}, [&](const Mesh& mesh) {
    const std::vector<int64_t> seen =
        mesh.rank() == 0 ? std::vector<int64_t>{6, 3, kBeside} : std::vector<int64_t>{9};
    EXPECT_EQ(agreed_steps(mesh, [&] { return seen; }), (std::vector<int64_t>{6, 3, kBeside}));
    EXPECT_EQ(agreed_steps(mesh, [] { return std::vector<int64_t>(); }), std::vector<int64_t>());
    test::expect_error(ExitCode::usage, {"there: no such"}, [&] {
      agreed_steps(mesh, []() -> std::vector<int64_t> { throw UsageError("there", "no such"); });
    });
  });
}

}  // namespace
}  // namespace dsv3
