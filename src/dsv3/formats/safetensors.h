#pragma once
// safetensors: an 8-byte little-endian header length, a JSON header, then the data.
// Source: the format's README at huggingface/safetensors.
//
// Stricter than the format where leniency hides damage: tensors cover the data without holes, overlap or
// trailing bytes; a tensor begins at a multiple of its element size within the data (the data itself may
// begin anywhere: it is copied out, never mapped); names hold no control characters; at most 64 dims; nothing
// but dtype, shape and data_offsets in an entry.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/file.h"
#include "dsv3/formats/dtype.h"

namespace dsv3 {

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes in the data section
  int64_t numel() const;
};

class SafetensorsFile {
 public:
  // Reads and checks the whole header, piece by piece: memory follows the tensors that it holds, not what it
  // claims. InputError{file, tensor or byte, why}.
  explicit SafetensorsFile(const std::filesystem::path& path);
  explicit SafetensorsFile(std::unique_ptr<const InputFile> file);

  const std::string& path() const { return file_->path(); }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // by data offset
  const TensorInfo* find(std::string_view name) const;                 // nullptr when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Bytes [offset, offset + out.size()) of a tensor.
  void read(const TensorInfo& tensor, std::span<std::byte> out, uint64_t offset = 0) const;

 private:
  std::unique_ptr<const InputFile> file_;
  uint64_t data_begin_ = 0;
  std::vector<TensorInfo> tensors_;
  // By hash, then name: a million names sort fast, and no choice of names makes it slow.
  struct NameKey {
    size_t hash;
    uint32_t tensor;  // into tensors_
  };
  std::vector<NameKey> by_name_;
  std::map<std::string, std::string> metadata_;
};

// Writes tensors in the order of declaration, streaming; whole or absent. Larger dtypes go first: an entry
// that would begin misaligned is a std::logic_error.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
  };
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<Entry>& entries,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  void write(
      std::span<const std::byte> bytes);  // the data of the entries, one after the other, in any pieces
  // Leaves out the next `size` bytes of data, for values that are known later; fill() gives them, `offset`
  // counted in the data.
  void skip(uint64_t size);
  void fill(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t size() const { return file_.size(); }  // bytes of the file so far, with its header
  void finish();  // throws std::logic_error when bytes are missing or too many

 private:
  AtomicFile file_;
  uint64_t data_begin_ = 0, expected_ = 0, written_ = 0;
  uint64_t unfilled_ = 0;
};

}  // namespace dsv3
