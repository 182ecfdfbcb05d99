#pragma once
// Where a run stands, beside weights and moments.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/json.h"
#include "dsv3/config/run_config.h"
#include "dsv3/data/stream_position.h"

namespace dsv3 {

struct TrainState {
  int64_t step = 0;     // steps begun, skipped ones too
  int64_t tokens = 0;   // input positions without padding
  int64_t cursor = 0;   // samples of the training stream consumed
  int64_t skipped = 0;  // steps without an update
  int64_t bad_in_a_row = 0;
  StreamPosition data = {};  // where each source stands at cursor; without walks: what the cursor alone says
};

// The text under the checkpoint's key `dsv3.state`: the state, Adam's t, and the run that it belongs to.
struct SavedState {
  TrainState train;
  int64_t updates = 0;
  ModelConfig model;
  std::string run;             // run.toml
  std::string tokenizer = {};  // hash_of_ids(); empty: nobody said

  std::string text() const;
  // InputError{file, field} when it is no such text, a count is negative, or a source has given more samples
  // than all together, or less than its share. Texts of version 1 have no cursors of the sources.
  static SavedState parse(std::string_view text, std::string_view file);
};

// What the run does otherwise than the one that was saved (its run.toml): "data.seed 3 there, 9 here". Left
// out is where and how a run is executed (checkpoint.*, parallel.*, eval.*, train.out, …), and the model: see
// require_same_model.
std::vector<std::string> changed_keys(const std::string& saved_run, const RunConfig& run);

// UsageError that lists the fields in which the models differ.
void require_same_model(const ModelConfig& saved, const ModelConfig& model, std::string_view checkpoint);

// UsageError when ids mean other texts than in training: both hashes are known and differ.
void require_same_tokenizer(const std::string& saved, const DataConfig& data, std::string_view checkpoint);

// Whether the weights of a model.init folder are of the run's model, by the folder's config.json, if it holds
// one. UsageError that lists the fields in which the forward computation differs. Those of them that the run
// file or a flag writes itself, and that change no tensor's shape, are meant: returned, as "rope_theta 10000
// there, 5000 here". InputError: config.json is damaged, or of a model that the program lacks.
std::vector<std::string> require_init_model(const std::filesystem::path& folder, const RunConfig& run);

}  // namespace dsv3
