#pragma once
// A checkpoint of any format, looked at and compared.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/base/json.h"
#include "dsv3/convert/tensor_store.h"
#include "dsv3/convert/verify_folder.h"

namespace dsv3 {

class Checkpoint {
 public:
  // A Hugging Face folder, a DCP folder, one .safetensors, or a run folder: checkpoint_folder(). UsageError
  // when there is no such path; InputError as the format's reader says.
  explicit Checkpoint(
      const std::filesystem::path& path,
      const std::function<void(const std::string&)>& warn = [](const std::string&) {});

  const std::filesystem::path& path() const { return path_; }  // of the checkpoint itself
  std::string format() const;                                  // "dcp" | "safetensors"
  const TensorStore& store() const { return *store_; }
  bool has_manifest() const;
  // dsv3.state of a run's checkpoint.
  std::optional<Json> state() const;

 private:
  std::filesystem::path path_;
  std::unique_ptr<TensorStore> store_;
};

// What a path may stand for, the best first: of a run the steps of its checkpoints, newest first, and then
// kBeside if it has an hf/; else kBeside alone, the path itself. UsageError when there is no such path.
constexpr int64_t kBeside = -1;
std::vector<int64_t> weight_steps(const std::filesystem::path& path);
// use(folder, is a run's checkpoint) for these steps of a path until the content of one is valid as far as
// use() reads it; warn() of each that is passed by. The last one's error, and any that is not of content, is
// the caller's.
void use_first_valid(const std::filesystem::path& path, const std::vector<int64_t>& steps,
                     const std::function<void(const std::string&)>& warn,
                     const std::function<void(const std::filesystem::path&, bool)>& use);

// The first of weight_steps() whose names can be read, if a checkpoint with a manifest.json; the last one's
// error when none can.
std::filesystem::path checkpoint_folder(
    const std::filesystem::path& path,
    const std::function<void(const std::string&)>& warn = [](const std::string&) {});
// The first every byte of which is right, if a checkpoint; warn() of those that are passed by.
std::filesystem::path valid_checkpoint_folder(const std::filesystem::path& path,
                                              const std::function<void(const std::string&)>& warn);

struct VerifyResult {
  std::filesystem::path path;
  bool verified = false;  // against a manifest
  std::string verdict;    // in words: what was checked
  uint64_t bytes = 0;
  std::vector<Damage> damaged;
  std::vector<std::string> unlisted;  // files that the manifest does not list
};
// Reads every byte. With a manifest.json each block of each file; without, the structure, every tensor, and
// the CRC-32 that DCP items have, which is "unverified". InputError where the structure itself is damaged.
VerifyResult verify_checkpoint(const std::filesystem::path& path, int threads);

struct Difference {
  std::string name, what;  // "is missing in A", "shape [2] and [3]", "17 of 64 elements differ, by up to 0.5"
};
// Bit by bit where the dtypes are equal, else by value. In the order of the names. A Hugging Face folder with
// a DCP folder: the parameters of the model that both hold by a config.json of theirs (optimizer state is not
// looked at; InputError when a repeat of a shared tensor is none); without one, or when the weights of either
// do not fit it, and of equal formats: the tensors of equal names.
//
// Of two DCP folders also the Python objects that both hold: plain values by value, others by their bytes,
// and of dsv3.state where the run stood (not how it was run).
std::vector<Difference> diff_checkpoints(const Checkpoint& left, const Checkpoint& right);

}  // namespace dsv3
