#include "dsv3/convert/dcp_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/convert/rectangles.h"
#include "dsv3/formats/zip.h"

namespace dsv3 {
namespace fs = std::filesystem;
bool is_dcp_folder(const fs::path& folder) {
  std::error_code error;
  return fs::exists(fs::symlink_status(folder / ".metadata", error));
}

DcpFolder::DcpFolder(const fs::path& folder)
    : folder_(folder), metadata_file_((folder / ".metadata").string()), manifest_(Manifest::read(folder)) {
  metadata_ = read_dcp_metadata(open(".metadata"));
  for (const DcpTensor& tensor : metadata_.tensors) {
    by_key_.emplace(tensor.key, &tensor);
    const std::string& name = tensor.chunks.empty() ? ".metadata" : tensor.chunks.front().file;
    tensors_.emplace(tensor.key,
                     StoredTensor{tensor.key, tensor.dtype, tensor.shape, (folder / name).string()});
    for (const DcpChunk& chunk : tensor.chunks) check_end(chunk.file, chunk.offset, chunk.length, tensor.key);
  }
  for (const DcpBytes& object : metadata_.objects) {
    check_end(object.file, object.offset, object.length, object.key);
    objects_.emplace(object.key, &object);
  }
}

DcpFolder::~DcpFolder() = default;

void DcpFolder::check_end(const std::string& name, uint64_t offset, uint64_t length,
                          std::string_view key) const {
  const InputFile& file = open(name);
  const auto end = checked_add(offset, length);
  if (!end || *end > file.size()) {
    throw InputError(file.path(), key,
                     fmt::format("{} bytes at {}, the file ends at {}", length, offset, file.size()),
                     "the checkpoint is incomplete");
  }
}

const InputFile& DcpFolder::open(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  auto it = files_.find(name);
  if (it == files_.end()) it = files_.emplace(name, open_in_folder(folder_, name, manifest_)).first;
  return *it->second;
}

const TorchTensor& DcpFolder::item(const DcpTensor& tensor, const DcpChunk& chunk) const {
  const InputFile& file = open(chunk.file);
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = items_.find(&chunk); it != items_.end()) return it->second;
  }
  TorchTensor item = read_torch_tensor(file, chunk.offset, chunk.length, tensor.key);
  if (item.dtype != tensor.dtype || item.shape != chunk.sizes) {
    throw InputError(
        file.path(), tensor.key,
        fmt::format("is {} [{}] here, {} [{}] in .metadata", dtype_name(item.dtype),
                    fmt::join(item.shape, ", "), dtype_name(tensor.dtype), fmt::join(chunk.sizes, ", ")));
  }
  if (!manifest_) check_torch_tensor(file, item, tensor.key);
  const std::lock_guard lock(mutex_);
  return items_.emplace(&chunk, std::move(item)).first->second;
}

void DcpFolder::read_bytes(const StoredTensor& stored, int64_t begin, std::span<std::byte> out) const {
  const DcpTensor& tensor = *by_key_.at(stored.name);
  const auto size = dtype_size(tensor.dtype);
  const int64_t end = begin + static_cast<int64_t>(out.size()) / size;
  for (const DcpChunk& chunk : tensor.chunks) {
    for_each_run(tensor.shape, chunk.offsets, chunk.sizes, begin, end, [&](const Run& run) {
      const TorchTensor& where = item(tensor, chunk);
      const InputFile& file = open(chunk.file);
      const auto bytes = out.subspan(static_cast<size_t>((run.tensor - begin) * size),
                                     static_cast<size_t>(run.count * size));
      if (!where.transposed)
        return file.read(bytes, where.begin + static_cast<uint64_t>(run.rectangle * size));
      const StoredMatrix matrix{file, where.begin, chunk.sizes[0], size};
      for_each_block(chunk.sizes[1], run.rectangle, run.rectangle + run.count,
                     [&](const MatrixBlock& block, int64_t offset) {
                       read_block_transposed(matrix, {block.col, block.cols, block.row, block.rows},
                                             bytes.data() + offset * size, block.cols);
                     });
    });
  }
}

void DcpFolder::read_transposed(const StoredTensor& stored, const MatrixBlock& block,
                                std::span<std::byte> out) const {
  const DcpTensor& tensor = *by_key_.at(stored.name);
  if (tensor.shape.size() != 2 || out.size() != static_cast<size_t>(block.rows * block.cols) *
                                                    static_cast<size_t>(dtype_size(tensor.dtype)))
    throw std::logic_error(stored.name + ": no such block");
  const auto size = dtype_size(tensor.dtype);
  for (const DcpChunk& chunk : tensor.chunks) {
    const int64_t row = std::max(block.row, chunk.offsets[0]), col = std::max(block.col, chunk.offsets[1]);
    const int64_t rows = std::min(block.row + block.rows, chunk.offsets[0] + chunk.sizes[0]) - row;
    const int64_t cols = std::min(block.col + block.cols, chunk.offsets[1] + chunk.sizes[1]) - col;
    if (rows <= 0 || cols <= 0) continue;
    const TorchTensor& where = item(tensor, chunk);
    const InputFile& file = open(chunk.file);
    const MatrixBlock own{row - chunk.offsets[0], rows, col - chunk.offsets[1], cols};
    std::byte* const to = out.data() + ((col - block.col) * block.rows + row - block.row) * size;
    if (where.transposed) {
      read_block({file, where.begin, chunk.sizes[0], size}, {own.col, own.cols, own.row, own.rows}, to,
                 block.rows);
    } else {
      read_block_transposed({file, where.begin, chunk.sizes[1], size}, own, to, block.rows);
    }
  }
}

std::optional<PickleValue> DcpFolder::object(std::string_view key) const {
  const auto it = objects_.find(key);
  if (it == objects_.end()) return std::nullopt;
  const DcpBytes& object = *it->second;
  return read_torch_object(open(object.file), object.offset, object.length, object.key);
}

std::vector<std::string> DcpFolder::object_keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, where] : objects_) keys.push_back(key);
  return keys;
}

bool DcpFolder::is_same_archive(const DcpFolder& other, const std::string& key) const {
  constexpr uint64_t kPiece = 1u << 20;
  const DcpBytes &mine = *objects_.at(key), &its = *other.objects_.at(key);
  if (mine.length != its.length) return false;
  std::vector<std::byte> left, right;
  for (uint64_t begin = 0; begin < mine.length; begin += kPiece) {
    left.resize(std::min(kPiece, mine.length - begin));
    right.resize(left.size());
    open(mine.file).read(left, mine.offset + begin);
    other.open(its.file).read(right, its.offset + begin);
    if (left != right) return false;
  }
  return true;
}

void DcpFolder::check_object(std::string_view key) const {
  const DcpBytes& where = *objects_.find(key)->second;
  const StoredZip zip(open(where.file), where.offset, where.length, where.key);
  for (const ZipEntry& entry : zip.entries()) zip.check(entry);
}

void DcpFolder::check_objects_and_files() const {
  for (const auto& [key, where] : objects_) check_object(key);
  if (!manifest_) return;
  std::set<std::string_view> of_tensors;
  for (const DcpTensor& tensor : metadata_.tensors)
    for (const DcpChunk& chunk : tensor.chunks) of_tensors.insert(chunk.file);
  for (const auto& [name, hashes] : manifest_->files) {
    if (of_tensors.contains(name)) continue;
    std::vector<std::byte> block;
    for (uint64_t begin = 0; begin < hashes.size; begin += kManifestBlock) {
      block.resize(std::min(kManifestBlock, hashes.size - begin));
      open(name).read(block, begin);
    }
  }
}

}  // namespace dsv3
