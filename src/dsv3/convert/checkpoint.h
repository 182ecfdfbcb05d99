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
  explicit Checkpoint(const std::filesystem::path& path);

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

// The folder that a path stands for: of a run, its newest checkpoint that has a manifest.json and whose names
// can be read, else its hf/; else the path itself.
std::filesystem::path checkpoint_folder(const std::filesystem::path& path);
// The same, every byte of a run's checkpoint checked.
std::filesystem::path valid_checkpoint_folder(const std::filesystem::path& path);
// What a command says that takes this folder of a path, when it is not the run's newest checkpoint: "X is not
// valid: Y is taken"; else empty.
std::string passed_by(const std::filesystem::path& path, const std::filesystem::path& taken);
// use(folder) of a run's checkpoints, newest first, then of its hf/, until the content of one is valid as far
// as use() reads it; warn() of each that is passed by. Of another path use(path). The last one's error, and
// any that is not of content, is the caller's.
void with_valid_weights(const std::filesystem::path& path,
                        const std::function<void(const std::string&)>& warn,
                        const std::function<void(const std::filesystem::path&)>& use);

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
