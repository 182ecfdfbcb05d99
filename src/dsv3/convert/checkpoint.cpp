#include "dsv3/convert/checkpoint.h"

#include <algorithm>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements

bool opens(const fs::path& folder) {
  try {
    const DcpFolder dcp(folder);
    return true;
  } catch (const InputError&) {
    return false;
  }
}

// fn(first element, elements) over a tensor in pieces.
template <class Fn>
void for_each_piece(int64_t numel, Fn fn) {
  for (int64_t begin = 0; begin < numel; begin += kPiece) fn(begin, std::min(kPiece, numel - begin));
}

}  // namespace

fs::path checkpoint_folder(const fs::path& path) {
  require_exists(path);
  for (const int64_t step : list_checkpoints(path)) {
    fs::path folder = checkpoint_path(path, step);
    if (opens(folder)) return folder;
  }
  std::error_code error;
  const bool own =
      is_dcp_folder(path) || fs::exists(path / "config.json", error) || !fs::is_directory(path, error);
  return !own && fs::is_directory(path / "hf", error) ? path / "hf" : path;
}

std::string passed_by(const fs::path& path, const fs::path& taken) {
  const std::vector<int64_t> steps = list_checkpoints(path);
  if (steps.empty() || taken == checkpoint_path(path, steps.front())) return {};
  return printable(checkpoint_path(path, steps.front()).string(), 400) +
         " cannot be read: " + printable(taken.string(), 400) + " is taken";
}

Checkpoint::Checkpoint(const fs::path& path) : path_(checkpoint_folder(path)), store_(open_store(path_)) {}

std::string Checkpoint::format() const { return is_dcp_folder(path_) ? "dcp" : "safetensors"; }

bool Checkpoint::has_manifest() const { return dsv3::has_manifest(path_); }

std::optional<Json> Checkpoint::state() const {
  const auto* dcp = dynamic_cast<const DcpFolder*>(store_.get());
  if (dcp == nullptr) return std::nullopt;
  const auto text = dcp->object("dsv3.state");
  if (!text || !text->is(PickleKind::text)) return std::nullopt;
  Json state = parse_json(text->text(), dcp->file());
  if (!state.is_object()) throw InputError(dcp->file(), "dsv3.state", "is no object");
  return state;
}

VerifyResult verify_checkpoint(const fs::path& path, int threads) {
  // Of a run the newest, whatever is wrong with it.
  require_exists(path);
  const std::vector<int64_t> steps = list_checkpoints(path);
  VerifyResult result{.path = steps.empty() ? checkpoint_folder(path) : checkpoint_path(path, steps.front()),
                      .verified = false,
                      .verdict = {},
                      .bytes = 0,
                      .damaged = {},
                      .unlisted = {}};
  if (has_manifest(result.path)) {
    FolderCheck check = verify_folder(result.path, {}, threads);
    result.verified = true;
    result.verdict = "equal to manifest.json";
    result.bytes = check.bytes;
    result.damaged = std::move(check.damaged);
    result.unlisted = std::move(check.unlisted);
    if (!result.damaged.empty()) return result;
  }
  const Checkpoint checkpoint(result.path);
  if (result.verified) return result;
  const TensorStore& store = checkpoint.store();
  std::vector<std::byte> piece;
  for (const auto& entry : store.tensors()) {
    const StoredTensor& tensor = entry.second;
    for_each_piece(tensor.numel(), [&](int64_t begin, int64_t count) {
      piece.resize(static_cast<size_t>(count * dtype_size(tensor.dtype)));
      store.read_bytes(tensor, begin, piece);
      result.bytes += piece.size();
    });
  }
  if (const auto* dcp = dynamic_cast<const DcpFolder*>(&store)) dcp->check_objects_and_files();
  result.verdict = checkpoint.format() == "dcp"
                       ? "unverified: there is no manifest.json; every item has the CRC-32 of its own archive"
                       : "unverified: there is no manifest.json; names, shapes and sizes fit";
  return result;
}

}  // namespace dsv3
