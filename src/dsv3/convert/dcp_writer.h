#pragma once
// Writes the files of a DCP folder. Several processes may each write files of their own; one of them joins
// their parts into `.metadata` and manifest.json.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "dsv3/base/atomic_file.h"
#include "dsv3/config/param_table.h"
#include "dsv3/convert/dcp_part.h"
#include "dsv3/formats/pickle.h"
#include "dsv3/formats/torch_item.h"

namespace dsv3 {

// What a parameter is called in a DCP folder: its name; a tied embedding is there a second time, as
// lm_head.weight, since the state_dict() of transformers' model has both.
std::vector<std::string> dcp_keys(const ParamSpec& spec, const ModelConfig& config);

// One file: items one behind the other, each a torch.save archive at a multiple of 64 bytes.
class DcpFileWriter {
 public:
  explicit DcpFileWriter(const std::filesystem::path& path);

  // A rectangle of tensor `key` of `shape`; data holds it row-major. path: the key's place in the nested
  // dictionaries that Python sees.
  void tensor(const std::string& key, const std::vector<PathPart>& path, DType dtype,
              const std::vector<int64_t>& shape, const std::vector<int64_t>& offsets,
              const std::vector<int64_t>& sizes, std::span<const std::byte> data);
  // item: make_torch_tensor of dtype, sizes and data, which takes as long as writing and may be done
  // elsewhere.
  void tensor(const std::string& key, const std::vector<PathPart>& path, DType dtype,
              const std::vector<int64_t>& shape, const std::vector<int64_t>& offsets,
              const std::vector<int64_t>& sizes, std::span<const std::byte> data, const TorchItem& item);
  void object(const std::string& key, const std::vector<PathPart>& path, const PickleValue& value);
  uint64_t size() const { return file_.size(); }
  // Synced and in place.
  DcpPart finish();

 private:
  std::string padding() const;  // to the next item
  void write(std::span<const std::byte> bytes);

  std::string name_;
  AtomicFile file_;
  BlockHasher hasher_;
  DcpPart part_;
  std::map<std::string, size_t> tensors_;  // by key, into part_.metadata.tensors
};

// Joins what the parts hold of each tensor, and writes `.metadata` and manifest.json over every file of the
// folder; files that the part does not know are read to be hashed.
void finish_dcp_folder(const std::filesystem::path& folder, DcpPart part);

}  // namespace dsv3
