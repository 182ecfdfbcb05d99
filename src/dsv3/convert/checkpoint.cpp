#include "dsv3/convert/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements

// Names can be read, and bytes be checked when they are.
bool opens(const fs::path& checkpoint) {
  try {
    return DcpFolder(checkpoint).has_manifest();
  } catch (const InputError&) {
    return false;
  }
}

bool is_whole(const fs::path& checkpoint) {
  if (!opens(checkpoint)) return false;
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return verify_folder(checkpoint, {}, threads).is_whole();
}

// What is taken when none of a run's checkpoints is, and of what is no run.
fs::path beside_checkpoints(const fs::path& path) {
  std::error_code error;
  const bool own =
      is_dcp_folder(path) || fs::exists(path / "config.json", error) || !fs::is_directory(path, error);
  return !own && fs::is_directory(path / "hf", error) ? path / "hf" : path;
}

// The newest checkpoint of a run that is_valid.
fs::path newest(const fs::path& path, bool (*is_valid)(const fs::path&)) {
  require_exists(path);
  for (const int64_t step : list_checkpoints(path)) {
    fs::path folder = checkpoint_path(path, step);
    if (is_valid(folder)) return folder;
  }
  return beside_checkpoints(path);
}

// fn(first element, elements) over a tensor in pieces.
template <class Fn>
void for_each_piece(int64_t numel, Fn fn) {
  for (int64_t begin = 0; begin < numel; begin += kPiece) fn(begin, std::min(kPiece, numel - begin));
}

}  // namespace

fs::path checkpoint_folder(const fs::path& path) { return newest(path, opens); }

fs::path valid_checkpoint_folder(const fs::path& path) { return newest(path, is_whole); }

std::string passed_by(const fs::path& path, const fs::path& taken) {
  const std::vector<int64_t> steps = list_checkpoints(path);
  if (steps.empty() || taken == checkpoint_path(path, steps.front())) return {};
  return printable(checkpoint_path(path, steps.front()).string(), 400) +
         " is not valid: " + printable(taken.string(), 400) + " is taken";
}

void with_valid_weights(const fs::path& path, const std::function<void(const std::string&)>& warn,
                        const std::function<void(const fs::path&)>& use) {
  require_exists(path);
  std::vector<fs::path> folders;
  for (const int64_t step : list_checkpoints(path)) folders.push_back(checkpoint_path(path, step));
  const size_t checkpoints = folders.size();
  const fs::path beside = beside_checkpoints(path);
  if (checkpoints == 0 || beside != path) folders.push_back(beside);
  for (size_t i = 0; i < folders.size(); ++i) {
    try {
      if (i < checkpoints) require_manifest(folders[i]);
      return use(folders[i]);
    } catch (const Error& error) {
      if (error.code() != ExitCode::content || i + 1 == folders.size()) throw;
      warn(fmt::format("{} is not valid and is passed by: {}", printable(folders[i].string(), 400),
                       error.what()));
    }
  }
}

Checkpoint::Checkpoint(const fs::path& path) : path_(checkpoint_folder(path)), store_(open_store(path_)) {}

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
