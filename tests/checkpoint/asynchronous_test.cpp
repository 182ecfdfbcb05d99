// A checkpoint that is written in the background holds what was when it began.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "checkpoint/calls.h"
#include "dsv3/checkpoint/resume.h"
#include "dsv3/checkpoint/saver.h"
#include "dsv3/convert/run_folder.h"
#include "support/files.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

using test::Training;
using test::trajectory_run;

// Other threads than this one wait before they write, until it opens.
class Gate {
 public:
  Gate() {
    test::before_write = [this, own = std::this_thread::get_id()] {
      if (std::this_thread::get_id() == own) return;
      std::unique_lock lock(mutex_);
      // A save that waits for its writer would wait for ever: the gate opens by itself, and the test fails.
      opened_.wait_for(lock, std::chrono::seconds(20), [this] { return open_; });
      open_ = true;
    };
  }
  ~Gate() { test::before_write = nullptr; }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

// Master weights, router biases and moments.
std::vector<at::Tensor> state_of(Training& training) {
  std::vector<at::Tensor> state;
  for (const auto& unit : training.model.flat_units()) state.push_back(unit->master());
  for (const RouterState& router : training.model.router_states()) state.push_back(router.bias_E);
  for (const Optimizer::Moments& moments : training.optimizer.moments())
    state.insert(state.end(), {moments.first, moments.second});
  return state;
}

TEST(Asynchronous, TrainingGoesOnWhileWhatWasIsWritten) {
  const test::TempDir dir;
  const RunConfig run =
      trajectory_run({"model.init=", "train.out=" + (dir / "run").string(), "checkpoint.async=true"});
  Training training(run);
  training.trainer.step();
  std::vector<at::Tensor> before;
  for (const at::Tensor& tensor : state_of(training)) before.push_back(tensor.clone());
  Gate gate;
  {
    Saver saver(training.model, training.optimizer, run);
    saver.begin(training.trainer.state());
    EXPECT_TRUE(saver.under_way());
    EXPECT_EQ(saver.poll(), "");
    EXPECT_TRUE(saver.under_way());
    for (const at::Tensor& tensor : state_of(training)) tensor.fill_(7);
    gate.open();
    EXPECT_NE(saver.poll(/*wait=*/true).find("1 saved"), std::string::npos);
    EXPECT_FALSE(saver.under_way());
  }
  Training loaded(run);
  load_checkpoint(loaded.model, loaded.optimizer, checkpoint_path(run.train.out, 1));
  EXPECT_TRUE(test::all_equal(state_of(loaded), before));
}

}  // namespace
}  // namespace dsv3
