// The next batch is read on a thread of its own: when its turn comes, the file is needed no more.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <iterator>
#include <thread>

#include "support/files.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::Training;
using test::trajectory_run;

// A thread is gone when what it was begun for is read.
int64_t threads() {
  return std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator());
}

class ReadAhead : public testing::Test {
 protected:
  ReadAhead() {
    for (const char* ending : {".bin", ".idx"})
      fs::copy(test::kTrajectory / (std::string("text") + ending), dir_ / (std::string("text") + ending));
    run_ = trajectory_run({"data.train=" + (dir_ / "text").string()});
  }
  // From here on nothing can be read, where a thread that is at work has ended.
  void lose_the_file(int64_t threads_without_it) {
    for (int i = 0; i < 6000 && threads() > threads_without_it; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_LE(threads(), threads_without_it);
    fs::resize_file(dir_ / "text.bin", 0);
  }

  test::TempDir dir_;
  RunConfig run_;
};

TEST_F(ReadAhead, ABatchThatWasBegunNeedsTheFileNoMore) {
  const Loader loader(run_, Mesh::create({}));
  LoaderAhead ahead(loader);
  const int64_t before = threads();
  ahead.begin(2, 2);
  lose_the_file(before);
  EXPECT_EQ(ahead.take(2, 2).first_sample, 2);
  EXPECT_THROW(ahead.take(2, 2), InputError) << "it is given once";
}

TEST_F(ReadAhead, ATrainerReadsTheNextBatchWhileItComputes) {
  Training training(run_);
  training.trainer.step();
  training.trainer.step();  // the threads that compute are there now
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const int64_t before = threads();
  training.trainer.step();
  lose_the_file(before);
  EXPECT_EQ(training.trainer.step().step, 4);
  EXPECT_THROW(training.trainer.step(), InputError);
}

}  // namespace
}  // namespace dsv3
