#pragma once
// A folder of PyTorch's distributed checkpoint (DCP): `.metadata` and the files that it names. Where the
// folder has a manifest.json every byte is checked before it is used, else the CRC-32 of each item.

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "dsv3/convert/checked_file.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/matrix_block.h"
#include "dsv3/convert/tensor_store.h"
#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/torch_item.h"

namespace dsv3 {

// The key of a run's state (checkpoint/train_state.h).
inline constexpr const char* kStateKey = "dsv3.state";

class DcpFolder : public TensorStore {
 public:
  // Reads `.metadata` (whose chunks cover each tensor just once) and manifest.json. InputError: either is
  // damaged, a file is missing, a link out of the folder, or shorter than what lies in it. The items are
  // looked at when they are read.
  explicit DcpFolder(const std::filesystem::path& folder);
  ~DcpFolder() override;

  const std::string& file() const override { return metadata_file_; }
  bool has_manifest() const { return manifest_.has_value(); }
  const DcpMetadata& metadata() const { return metadata_; }

  // InputError: a byte differs from the manifest or a CRC, an item's dtype or shape from `.metadata`.
  void read_bytes(const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) const override;
  // A block of a matrix, transposed: out holds [block.cols, block.rows], row-major. Errors of read_bytes().
  void read_transposed(const StoredTensor& matrix, const MatrixBlock& block, std::span<std::byte> out) const;
  // The Python object of a key; nothing when there is no such key.
  std::optional<PickleValue> object(std::string_view key) const;
  std::vector<std::string> object_keys() const;
  bool has_object(std::string_view key) const { return objects_.contains(key); }
  // Whether both have the same archive under the key, which both hold.
  bool is_same_archive(const DcpFolder& other, const std::string& key) const;
  // Checks the CRCs of the object's archive, whatever its class.
  void check_object(std::string_view key) const;
  // Checks the bytes of every object, whatever its class, and every file of the manifest that holds no
  // tensor.
  void check_objects_and_files() const;

 private:
  const InputFile& open(const std::string& name) const;
  void check_end(const std::string& name, uint64_t offset, uint64_t length, std::string_view key) const;
  const TorchTensor& item(const DcpTensor& tensor, const DcpChunk& chunk) const;  // looked at once

  std::filesystem::path folder_;
  std::string metadata_file_;
  std::optional<Manifest> manifest_;
  DcpMetadata metadata_;
  std::map<std::string, const DcpTensor*, std::less<>> by_key_;
  std::map<std::string, const DcpBytes*, std::less<>> objects_;
  mutable std::mutex mutex_;  // guards the maps below; what they hold stays where it is
  mutable std::map<std::string, std::unique_ptr<CheckedFile>, std::less<>> files_;
  mutable std::map<const DcpChunk*, TorchTensor> items_;
};

// Whether the folder is one: it holds `.metadata`.
bool is_dcp_folder(const std::filesystem::path& folder);

}  // namespace dsv3
