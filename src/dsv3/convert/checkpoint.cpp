#include "dsv3/convert/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/manifest.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements

// InputError unless names can be read, and bytes be checked when they are.
void require_readable(const fs::path& checkpoint) {
  require_manifest(checkpoint);
  const DcpFolder opened(checkpoint);
}

// InputError naming the first damage; RunError when it is none of the content.
void require_whole(const fs::path& checkpoint) {
  require_readable(checkpoint);
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const FolderCheck check = verify_folder(checkpoint, {}, threads);
  if (check.is_whole()) return;
  const Damage& first = check.damaged.front();
  const fs::path file = checkpoint / first.file;
  if (first.code != ExitCode::content) throw RunError(printable(file.string(), 400), first.what);
  throw InputError(file.string(), fmt::format("bytes {} to {}", first.begin, first.end), first.what);
}

fs::path weight_folder(const fs::path& path, int64_t step) {
  if (step != kBeside) return checkpoint_path(path, step);
  std::error_code error;
  const bool own =
      is_dcp_folder(path) || fs::exists(path / "config.json", error) || !fs::is_directory(path, error);
  return !own && fs::is_directory(path / "hf", error) ? path / "hf" : path;
}

// fn(first element, elements) over a tensor in pieces.
template <class Fn>
void for_each_piece(int64_t numel, Fn fn) {
  for (int64_t begin = 0; begin < numel; begin += kPiece) fn(begin, std::min(kPiece, numel - begin));
}

}  // namespace

std::vector<int64_t> weight_steps(const fs::path& path) {
  require_exists(path);
  std::vector<int64_t> steps = list_checkpoints(path);
  if (steps.empty() || weight_folder(path, kBeside) != path) steps.push_back(kBeside);
  return steps;
}

void use_first_valid(const fs::path& path, const std::vector<int64_t>& steps,
                     const std::function<void(const std::string&)>& warn,
                     const std::function<void(const fs::path&, bool)>& use) {
  for (const int64_t step : steps) {
    const fs::path folder = weight_folder(path, step);
    try {
      return use(folder, step != kBeside);
    } catch (const Error& error) {
      if (error.code() != ExitCode::content || step == steps.back()) throw;
      warn(
          fmt::format("{} is not valid and is passed by: {}", printable(folder.string(), 400), error.what()));
    }
  }
}

fs::path checkpoint_folder(const fs::path& path, const std::function<void(const std::string&)>& warn) {
  fs::path found;
  use_first_valid(path, weight_steps(path), warn, [&](const fs::path& folder, bool is_checkpoint) {
    if (is_checkpoint) require_readable(folder);
    found = folder;
  });
  return found;
}

fs::path valid_checkpoint_folder(const fs::path& path, const std::function<void(const std::string&)>& warn) {
  fs::path found;
  use_first_valid(path, weight_steps(path), warn, [&](const fs::path& folder, bool is_checkpoint) {
    if (is_checkpoint) require_whole(folder);
    found = folder;
  });
  return found;
}

Checkpoint::Checkpoint(const fs::path& path, const std::function<void(const std::string&)>& warn)
    : path_(checkpoint_folder(path, warn)), store_(open_store(path_)) {}

std::string Checkpoint::format() const { return is_dcp_folder(path_) ? "dcp" : "safetensors"; }

bool Checkpoint::has_manifest() const { return dsv3::has_manifest(path_); }

std::optional<Json> Checkpoint::state() const {
  const auto* dcp = dynamic_cast<const DcpFolder*>(store_.get());
  if (dcp == nullptr) return std::nullopt;
  const auto text = dcp->object(kStateKey);
  if (!text || !text->is(PickleKind::text)) return std::nullopt;
  Json state = parse_json(text->text(), dcp->file());
  if (!state.is_object()) throw InputError(dcp->file(), kStateKey, "is no object");
  return state;
}

VerifyResult verify_checkpoint(const fs::path& path, int threads) {
  // Of a run the newest, whatever is wrong with it.
  require_exists(path);
  const std::vector<int64_t> steps = list_checkpoints(path);
  VerifyResult result{
      .path = steps.empty() ? weight_folder(path, kBeside) : checkpoint_path(path, steps.front()),
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
