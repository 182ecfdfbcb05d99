#pragma once
// Checkpoints of a run: written by all ranks at once, whole or absent, in the background if asked for.

#include <filesystem>
#include <future>
#include <string>
#include <thread>

#include "dsv3/checkpoint/train_state.h"
#include "dsv3/optim/optimizer.h"

namespace dsv3 {

// A checkpoint is the folder RUN/checkpoints/step-N. It is written as step-N.tmp and renamed when every file
// of every rank is synced and manifest.json holds their hashes. The ranks share a file system.
//
// All ranks make the same calls.
class Saver {
 public:
  // last_step: of the checkpoint in the run folder that the run was resumed from, 0: none. tokenizer: that
  // one's hash, which stays where the data says none.
  Saver(Model& model, Optimizer& optimizer, const RunConfig& run, int64_t last_step = 0,
        const std::string& tokenizer = "");
  // A checkpoint still being written is dropped.
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  // Begins the checkpoint of a step, after the one before is finished. With checkpoint.async the state is
  // copied and written while training goes on, else it is there when the call returns. The result is what
  // poll() says.
  std::string begin(const TrainState& state);
  // Once a step: completes a checkpoint that all ranks have written. Returns what a person should hear, empty
  // when nothing happened. wait: until it is complete. RunError after checkpoint.max_failures failures in a
  // row.
  std::string poll(bool wait = false);

  bool under_way() const { return writing_.valid(); }  // between begin() and a poll() that completes it
  int64_t last_step() const { return last_step_; }  // of the newest complete checkpoint of this run, 0: none

 private:
  std::string complete();
  std::string failed(const std::string& why);
  uint64_t commit();  // rank 0; bytes of tensors
  std::filesystem::path unfinished() const;

  Model& model_;
  Optimizer& optimizer_;
  const RunConfig& run_;
  std::string tokenizer_;      // hash_of_ids(), else that of the checkpoint before
  std::jthread thread_;        // with checkpoint.async
  std::future<void> writing_;  // this rank's files; not valid: no checkpoint is under way
  int64_t step_ = 0;           // of the checkpoint under way
  int64_t last_step_ = 0;
  int64_t failures_ = 0;  // in a row
};

}  // namespace dsv3
