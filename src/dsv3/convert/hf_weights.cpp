#include "dsv3/convert/hf_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "dsv3/base/error.h"
#include "dsv3/convert/checked_file.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/problems.h"
#include "dsv3/formats/hf_index.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr size_t kPieceBytes = 1 << 20;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

[[noreturn]] void throw_no_weights(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))) {
      throw InputError(entry.path().string(), "", "is a pickle, only safetensors are read",
                       "save the model again with safe_serialization=True");
    }
  }
  throw InputError((folder / kSingle).string(), "", fmt::format("no such file, nor {}", kIndex));
}

std::string name_of(const SafetensorsFile& file) {
  return printable(fs::path(file.path()).filename().string());
}

void check_total_size(const HfIndex& index, const HfWeights& weights) {
  if (!index.total_size) return;
  uint64_t bytes = 0, elements = 0;
  bool fp8 = false;
  for (const auto& [name, tensor] : weights.tensors()) {
    const auto numel = static_cast<uint64_t>(tensor.numel());
    bytes += numel * static_cast<uint64_t>(dtype_size(tensor.dtype));
    elements += numel;
    fp8 |= tensor.dtype == DType::f8_e4m3;
  }
  // The released FP8 index counts two bytes an element, scales included.
  if (*index.total_size == bytes || (fp8 && *index.total_size == 2 * elements)) return;
  throw InputError(weights.file(), "metadata.total_size",
                   fmt::format("{}, the tensors hold {} bytes", *index.total_size, bytes));
}

}  // namespace

void HfWeights::open(const fs::path& folder, const std::string& name) {
  files_.emplace_back(open_in_folder(folder, name, manifest_));
}

HfWeights::HfWeights(const fs::path& folder) {
  require_exists(folder);
  if (!fs::is_directory(folder)) {
    file_ = folder.string();
    files_.emplace_back(folder);
    add(files_.front(), {});
    return;
  }
  manifest_ = Manifest::read(folder);
  if (is_there(folder / kSingle)) {
    file_ = (folder / kSingle).string();
    open(folder, kSingle);
    add(files_.front(), {});
  } else if (is_there(folder / kIndex)) {
    file_ = (folder / kIndex).string();
    open_shards(folder);
  } else {
    throw_no_weights(folder);
  }
}

void HfWeights::open_shards(const fs::path& folder) {
  check_listed_file(manifest_, folder, kIndex);
  const HfIndex index = read_hf_index(file_in_folder(folder, kIndex));
  files_.reserve(index.shards.size());
  Problems problems(file_);
  for (const std::string& shard : index.shards) {
    open(folder, shard);
    add(files_.back(), [&](const TensorInfo& info, const SafetensorsFile& first) {
      problems.add(info.name, fmt::format("is in {} and in {}", name_of(first), name_of(files_.back())));
    });
  }
  for (const HfIndex::Entry& entry : index.entries)
    if (files_[entry.shard].find(entry.tensor) == nullptr)
      problems.add(entry.tensor, fmt::format("is missing in {}", name_of(files_[entry.shard])));
  for (const auto& [name, where] : where_)
    if (!std::ranges::binary_search(index.entries, name, {}, &HfIndex::Entry::tensor))
      problems.add(name, fmt::format("is in {} and not listed", name_of(*where.file)));
  problems.throw_if_any("the index is of other files than these");
  check_total_size(index, *this);
}

void HfWeights::add(const SafetensorsFile& file, const OnTwin& on_twin) {
  for (const TensorInfo& info : file.tensors()) {
    const auto [it, is_new] = where_.try_emplace(info.name, Where{&file, &info});
    if (!is_new) {
      on_twin(info, *it->second.file);
      continue;
    }
    tensors_.emplace(info.name, StoredTensor{info.name, info.dtype, info.shape, file.path()});
  }
}

std::optional<TensorStore::Problem> HfWeights::problem_with(const StoredTensor& tensor) const {
  if (is_float(tensor.dtype)) return std::nullopt;
  const std::string scale_name = fp8_scale_name(tensor.name);
  if (tensor.dtype != DType::f8_e4m3 || tensor.shape.size() != 2 || scale_name.empty()) {
    return Problem{tensor.name,
                   fmt::format("has dtype {}, expected F64, F32, F16, BF16, or F8_E4M3 in a matrix",
                               dtype_name(tensor.dtype))};
  }
  const StoredTensor* scales = find(scale_name);
  if (scales == nullptr) return Problem{scale_name, "is missing, the weight is F8_E4M3"};
  const auto expected = fp8_scale_shape(tensor.shape[0], tensor.shape[1]);
  if (scales->shape != expected) {
    return Problem{scale_name, fmt::format("has shape [{}], expected [{}]", fmt::join(scales->shape, ", "),
                                           fmt::join(expected, ", "))};
  }
  if (scales->dtype != DType::f32) {
    return Problem{scale_name, fmt::format("has dtype {}, expected F32", dtype_name(scales->dtype))};
  }
  return std::nullopt;
}

bool HfWeights::is_companion(std::string_view name) const {
  constexpr std::string_view kSuffix = "_scale_inv";
  if (!name.ends_with(kSuffix)) return false;
  const StoredTensor* weight = find(name.substr(0, name.size() - kSuffix.size()));
  return weight != nullptr && weight->dtype == DType::f8_e4m3;
}

void HfWeights::read_bytes(const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) const {
  const auto& [file, info] = where_.at(tensor.name);
  file->read(*info, out, static_cast<uint64_t>(begin * dtype_size(tensor.dtype)));
}

template <class T>
void HfWeights::read_fp8(const StoredTensor& tensor, int64_t begin, std::span<T> out) const {
  if (const auto problem = problem_with(tensor))
    throw InputError(tensor.file, problem->tensor, problem->what);
  const StoredTensor& scales = *find(fp8_scale_name(tensor.name));
  const int64_t cols = tensor.shape[1], width = scales.shape[1];
  std::vector<std::byte> codes(std::min(out.size(), kPieceBytes));
  std::vector<float> scale_rows;
  while (!out.empty()) {
    const size_t count = std::min(out.size(), kPieceBytes);
    read_bytes(tensor, begin, std::span(codes).first(count));
    // The rows of scales that these elements touch.
    const int64_t first = begin / cols / kFp8Block;
    const int64_t last = (begin + static_cast<int64_t>(count) - 1) / cols / kFp8Block;
    scale_rows.resize(static_cast<size_t>((last - first + 1) * width));
    read_bytes(scales, first * width, std::as_writable_bytes(std::span(scale_rows)));
    dequantise(std::span(codes).first(count), scale_rows, cols, begin, out.first(count));
    out = out.subspan(count);
    begin += static_cast<int64_t>(count);
  }
}

void HfWeights::read(const StoredTensor& tensor, int64_t begin, std::span<float> out) const {
  if (tensor.dtype == DType::f8_e4m3) return read_fp8(tensor, begin, out);
  TensorStore::read(tensor, begin, out);
}
void HfWeights::read(const StoredTensor& tensor, int64_t begin, std::span<double> out) const {
  if (tensor.dtype == DType::f8_e4m3) return read_fp8(tensor, begin, out);
  TensorStore::read(tensor, begin, out);
}

}  // namespace dsv3
