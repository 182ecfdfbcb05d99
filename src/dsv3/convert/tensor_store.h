#pragma once
// Named tensors on disk, whatever the format of the folder: what both checkpoint formats offer to who loads a
// model.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/formats/dtype.h"

namespace dsv3 {

struct StoredTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::string file;  // that holds it, or a part of it: for messages

  int64_t numel() const;
};

class TensorStore {
 public:
  virtual ~TensorStore() = default;

  // Where errors about the set of tensors point: an index, `.metadata`, the only file.
  virtual const std::string& file() const = 0;
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;  // nullptr when absent

  // What keeps read() from making numbers of a tensor: {the tensor to blame, what is wrong}. Nothing when it
  // can.
  struct Problem {
    std::string tensor, what;
  };
  virtual std::optional<Problem> problem_with(const StoredTensor& tensor) const;
  // Whether a tensor of this name belongs to another one, as the scales of an F8_E4M3 matrix do.
  virtual bool is_companion(std::string_view name) const;

  // Elements [begin, begin + n) as they are stored; out.size() = n · dtype_size. Safe from several threads.
  virtual void read_bytes(const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) const = 0;
  // The same as numbers, read in pieces of 1 MiB: F64, F32, F16, BF16, and what else the store can decode.
  // InputError for another dtype.
  virtual void read(const StoredTensor& tensor, int64_t begin, std::span<float> out) const;
  virtual void read(const StoredTensor& tensor, int64_t begin, std::span<double> out) const;

 protected:
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

// A DCP folder, else a Hugging Face folder or one .safetensors file; errors of their constructors.
std::unique_ptr<TensorStore> open_store(const std::filesystem::path& path);

}  // namespace dsv3
