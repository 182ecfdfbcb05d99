#include "dsv3/formats/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/formats/safetensors_header.h"

namespace dsv3 {

static_assert(std::endian::native == std::endian::little, "tensor bytes are read and written as they are");

namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // as the reference implementation

uint64_t header_length(const InputFile& file) {
  if (file.size() < 8) {
    throw InputError(file.path(), "byte 0", fmt::format("{} bytes are no safetensors file", file.size()));
  }
  char start[8];
  file.read(std::as_writable_bytes(std::span(start)), 0);
  if (std::string_view(start, 8) == "version ") {
    throw InputError(file.path(), "byte 0", "is a Git LFS pointer, not the weights themselves",
                     "fetch them with git lfs pull");
  }
  uint64_t length;
  std::memcpy(&length, start, 8);
  if (length > kMaxHeader) {
    throw InputError(file.path(), "byte 0",
                     fmt::format("header length {}, at most {} expected", length, kMaxHeader));
  }
  if (length > file.size() - 8) {
    throw InputError(file.path(), "byte 0",
                     fmt::format("header length {} in a file of {} bytes", length, file.size()));
  }
  return length;
}

size_t name_hash(std::string_view name) { return std::hash<std::string_view>()(name); }

}  // namespace

int64_t TensorInfo::numel() const { return static_cast<int64_t>(end - begin) / dtype_size(dtype); }

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : SafetensorsFile(std::make_unique<InputFile>(path)) {}

SafetensorsFile::SafetensorsFile(std::unique_ptr<const InputFile> file) : file_(std::move(file)) {
  const uint64_t length = header_length(*file_);
  data_begin_ = 8 + length;
  const uint64_t data_size = file_->size() - data_begin_;
  auto header = parse_safetensors_header(*file_, length, data_size);
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);

  // An empty tensor stands before the one that begins at the same byte.
  const auto range = [](const TensorInfo& t) { return std::pair(t.begin, t.end); };
  if (!std::ranges::is_sorted(tensors_, {}, range)) std::ranges::sort(tensors_, {}, range);
  by_name_.reserve(tensors_.size());
  for (uint32_t i = 0; i < tensors_.size(); ++i) by_name_.push_back({name_hash(tensors_[i].name), i});
  const auto key = [&](const NameKey& k) {
    return std::pair<size_t, std::string_view>(k.hash, tensors_[k.tensor].name);
  };
  std::ranges::sort(by_name_, {}, key);
  if (auto twin = std::ranges::adjacent_find(by_name_, {}, key); twin != by_name_.end()) {
    throw InputError(file_->path(), key(*twin).second, "duplicate key");
  }
  uint64_t at = 0;
  for (const TensorInfo& tensor : tensors_) {
    if (tensor.begin != at) {
      throw InputError(
          file_->path(), tensor.name,
          tensor.begin > at
              ? fmt::format("begins at {}: bytes {} to there belong to no tensor", tensor.begin, at)
              : fmt::format("begins at {}, overlaps the tensor that ends at {}", tensor.begin, at));
    }
    at = tensor.end;
  }
  if (at != data_size) {
    throw InputError(file_->path(), fmt::format("byte {}", data_begin_ + at),
                     fmt::format("{} trailing bytes belong to no tensor", data_size - at));
  }
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto key = [&](const NameKey& k) {
    return std::pair<size_t, std::string_view>(k.hash, tensors_[k.tensor].name);
  };
  const auto wanted = std::pair(name_hash(name), name);
  const auto it = std::ranges::lower_bound(by_name_, wanted, {}, key);
  return it != by_name_.end() && key(*it) == wanted ? &tensors_[it->tensor] : nullptr;
}

void SafetensorsFile::read(const TensorInfo& tensor, std::span<std::byte> out, uint64_t offset) const {
  const uint64_t size = tensor.end - tensor.begin;
  if (offset > size || out.size() > size - offset) {
    throw std::logic_error(fmt::format("{}: bytes {} + {} of {}", tensor.name, offset, out.size(), size));
  }
  file_->read(out, data_begin_ + tensor.begin + offset);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<Entry>& entries,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  std::string header = "{\"__metadata__\":" + Json(metadata).dump();
  for (const Entry& entry : entries) {
    const auto size = static_cast<uint64_t>(dtype_size(entry.dtype));
    const auto numel = checked_numel(entry.shape);
    if (!numel) throw std::logic_error(entry.name + ": impossible shape");
    if (expected_ % size != 0) throw std::logic_error(entry.name + ": misaligned, put larger dtypes first");
    const uint64_t end = expected_ + static_cast<uint64_t>(*numel) * size;
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          Json(entry.name).dump(), dtype_name(entry.dtype), fmt::join(entry.shape, ","),
                          expected_, end);
    expected_ = end;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');  // aligns the data, as the reference implementation does
  const uint64_t length = header.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(header);
  data_begin_ = file_.size();
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  written_ += bytes.size();
  if (written_ > expected_) throw std::logic_error("more bytes than the entries hold");
  file_.write(bytes);
}

void SafetensorsWriter::skip(uint64_t size) {
  const std::vector<std::byte> zeros(std::min<uint64_t>(size, 1 << 16));
  for (uint64_t left = size; left > 0; left -= std::min<uint64_t>(left, zeros.size())) {
    write(std::span(zeros).first(std::min<uint64_t>(left, zeros.size())));
  }
  unfilled_ += size;
}

void SafetensorsWriter::fill(uint64_t offset, std::span<const std::byte> bytes) {
  if (bytes.size() > unfilled_) throw std::logic_error("more bytes filled than skipped");
  file_.overwrite(bytes, data_begin_ + offset);
  unfilled_ -= bytes.size();
}

void SafetensorsWriter::finish() {
  if (written_ != expected_ || unfilled_ != 0) {
    throw std::logic_error(fmt::format("{} bytes written ({} of them skipped), the entries hold {}", written_,
                                       unfilled_, expected_));
  }
  file_.commit();
}

}  // namespace dsv3
