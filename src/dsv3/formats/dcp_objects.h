#pragma once
// The objects of which a `.metadata` has some for every chunk, in a few bytes each: a pickle's own values of
// one chunk take 5 kB. An object of a usual form is kept here as soon as it is read (PickleRules::fold); an
// odd one stays a value of the pickle, so both are understood wherever one belongs. For dcp_metadata_read.cpp
// alone.

#include <array>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsv3/formats/dtype.h"
#include "dsv3/formats/pickle.h"

namespace dsv3::dcp {

constexpr size_t kMaxDims = 64;

// Takes the fields of a dataclass out of its state; each may be absent (nullptr). Else what is wrong.
using Wanted = std::pair<std::string_view, const PickleValue**>;
std::optional<std::string> take_fields(const PickleValue& object, std::initializer_list<Wanted> wanted);

// The dtype of TensorProperties; nothing, and why, when it is not supported.
std::optional<DType> dtype_of(const PickleValue* properties, std::string& fault);

// Whether _StorageInfo's transform_descriptors say that nothing was done to the bytes.
bool is_untransformed(const PickleValue* transforms);

class DcpObjects {
 public:
  // Keeps torch.Size, ChunkStorageMetadata, MetadataIndex, _StorageInfo and TensorStorageMetadata.
  std::optional<PickleFolded> fold(const PickleValue& object);

  // Each takes a value that may be anything, and gives nothing where it is not one of fold()'s.
  struct Chunk {
    uint32_t offsets, sizes;  // for dims()
  };
  struct Index {
    PickleValue fqn;                 // a text
    std::optional<uint32_t> offset;  // for dims()
  };
  struct StorageInfo {
    PickleValue file;  // a text
    int64_t offset, length;
  };
  struct Tensor {
    DType dtype;
    uint32_t size;       // for dims()
    PickleValue chunks;  // a list; several tensors may share it
  };
  const Chunk* chunk(const PickleValue& value) const { return find(value, kChunks, chunks_); }
  const Index* index(const PickleValue& value) const { return find(value, kIndexes, indexes_); }
  const StorageInfo* storage_info(const PickleValue& value) const { return find(value, kInfos, infos_); }
  const Tensor* tensor(const PickleValue& value) const { return find(value, kTensors, tensors_); }
  std::vector<int64_t> dims(uint32_t number) const;
  // Of any torch.Size((…,)), or the tuple itself.
  std::optional<std::vector<int64_t>> size_of(const PickleValue* value) const;

 private:
  enum Kind : uint32_t { kSizes, kChunks, kIndexes, kInfos, kTensors };
  struct Size {  // with more dims, or a negative one, it is not kept
    std::array<int64_t, 4> dims;
    uint32_t rank;
  };

  template <class T>
  static const T* find(const PickleValue& value, Kind kind, const std::deque<T>& kept) {
    const PickleFolded* folded = value.folded();
    return folded != nullptr && folded->kind == kind ? &kept[folded->index] : nullptr;
  }
  template <class T>
  static std::optional<PickleFolded> keep(T object, Kind kind, std::deque<T>& kept) {
    kept.push_back(std::move(object));
    return PickleFolded{kind, static_cast<uint32_t>(kept.size() - 1)};
  }
  std::optional<uint32_t> size_number(const PickleValue* value) const;
  std::optional<PickleFolded> fold_size(const PickleValue& object);
  std::optional<PickleFolded> fold_chunk(const PickleValue& object);
  std::optional<PickleFolded> fold_index(const PickleValue& object);
  std::optional<PickleFolded> fold_info(const PickleValue& object);
  std::optional<PickleFolded> fold_tensor(const PickleValue& object);

  // Deques: they grow without a copy of all.
  std::deque<Size> sizes_;
  std::deque<Chunk> chunks_;
  std::deque<Index> indexes_;
  std::deque<StorageInfo> infos_;
  std::deque<Tensor> tensors_;
};

}  // namespace dsv3::dcp
