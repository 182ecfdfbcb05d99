#include "dsv3/convert/tensor_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/hf_weights.h"

namespace dsv3 {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

template <class T>
void read_pieces(const TensorStore& store, const StoredTensor& tensor, int64_t begin, std::span<T> out) {
  if (const auto problem = store.problem_with(tensor))
    throw InputError(tensor.file, problem->tensor, problem->what);
  const auto size = static_cast<size_t>(dtype_size(tensor.dtype));
  std::vector<std::byte> piece(std::min(out.size() * size, kPieceBytes));
  while (!out.empty()) {
    const size_t count = std::min(out.size(), kPieceBytes / size);
    const std::span<std::byte> bytes(piece.data(), count * size);
    store.read_bytes(tensor, begin, bytes);
    decode(tensor.dtype, bytes, out.first(count));
    out = out.subspan(count);
    begin += static_cast<int64_t>(count);
  }
}

}  // namespace

int64_t StoredTensor::numel() const { return checked_numel(shape).value(); }

const StoredTensor* TensorStore::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

std::optional<TensorStore::Problem> TensorStore::problem_with(const StoredTensor& tensor) const {
  if (is_float(tensor.dtype)) return std::nullopt;
  return Problem{tensor.name,
                 fmt::format("has dtype {}, expected F64, F32, F16 or BF16", dtype_name(tensor.dtype))};
}

bool TensorStore::is_companion(std::string_view) const { return false; }

void TensorStore::read(const StoredTensor& tensor, int64_t begin, std::span<float> out) const {
  read_pieces(*this, tensor, begin, out);
}
void TensorStore::read(const StoredTensor& tensor, int64_t begin, std::span<double> out) const {
  read_pieces(*this, tensor, begin, out);
}

std::unique_ptr<TensorStore> open_store(const std::filesystem::path& path) {
  if (is_dcp_folder(path)) return std::make_unique<DcpFolder>(path);
  return std::make_unique<HfWeights>(path);
}

}  // namespace dsv3
