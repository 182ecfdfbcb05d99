#include "dsv3/convert/hf_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/pipeline.h"
#include "dsv3/convert/run_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 18;  // elements asked for at a time

std::vector<HfPiece> cut(const HfShard& shard, int64_t elements) {
  std::vector<HfPiece> pieces;
  for (const HfItem& item : shard.items) {
    const int64_t unit = item.is_fp8() ? kFp8Block * item.shape[1] : 1;
    const int64_t step = std::max<int64_t>(elements / unit, 1) * unit;
    for (int64_t begin = 0; begin < item.numel(); begin += step)
      pieces.push_back({&item, begin, std::min(step, item.numel() - begin)});
  }
  return pieces;
}

// A folder that disappears unless it is kept.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& target) : path_(target) {
    path_ += fmt::format(".tmp-{}", ::getpid());
    std::error_code error;
    fs::remove_all(path_, error);  // of a dead process that had our id
    create_folders(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const fs::path& path() const { return path_; }
  void keep_as(const fs::path& target) {
    fsync_directory(path_);
    rename_synced(path_, target);
    path_.clear();
  }

 private:
  fs::path path_;
};

}  // namespace

HfBytes encode_piece(const HfPiece& piece, std::span<const float> values) {
  const HfItem& item = *piece.item;
  HfBytes out{std::vector<std::byte>(values.size() * static_cast<size_t>(dtype_size(item.dtype))), {}};
  if (!item.is_fp8()) {
    encode(values, item.dtype, out.bytes);
    return out;
  }
  const int64_t cols = item.shape[1];
  const auto band = static_cast<size_t>(kFp8Block * cols), width = static_cast<size_t>(item.scale_shape()[1]);
  for (size_t at = 0; at < values.size(); at += band) {
    const size_t count = std::min(band, values.size() - at), row = out.scales.size();
    out.scales.resize(row + width);
    quantise(values.subspan(at, count), cols, std::span(out.bytes).subspan(at, count),
             std::span(out.scales).subspan(row));
  }
  return out;
}

FileHashes write_hf_shard(const fs::path& path, const HfShard& shard, int64_t elements, size_t ahead,
                          const std::function<void(const HfPiece&, HfBytes&)>& make,
                          const std::function<void(uint64_t)>& written) {
  SafetensorsWriter writer(path, shard.entries());
  writer.skip(shard.scale_bytes());  // they come first in the file and are known last
  // So the blocks up to here are hashed when they are complete, the others on the way.
  uint64_t unhashed = (kManifestBlock - writer.size() % kManifestBlock) % kManifestBlock;
  BlockHasher tail;
  std::vector<float> scales;
  const std::vector<HfPiece> pieces = cut(shard, elements);
  pipeline<HfBytes>(
      pieces.size(), ahead, [&](size_t i, HfBytes& piece) { make(pieces[i], piece); },
      [&](size_t, const HfBytes& piece) {
        writer.write(piece.bytes);
        const uint64_t left_out = std::min<uint64_t>(unhashed, piece.bytes.size());
        unhashed -= left_out;
        tail.update(std::span(piece.bytes).subspan(left_out));
        scales.insert(scales.end(), piece.scales.begin(), piece.scales.end());
        written(piece.bytes.size() + piece.scales.size() * sizeof(float));
      });
  if (!scales.empty()) writer.fill(0, std::as_bytes(std::span(scales)));
  writer.finish();
  return hash_file(path, tail.finish());
}

void write_hf_folder(const fs::path& folder, const ModelConfig& config, const ParamSource& source,
                     const HfWriteOptions& options) {
  fs::path target = folder.lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/" names the folder "out"
  if (fs::exists(fs::symlink_status(target))) {
    throw UsageError(printable(target.string(), 400), "exists already", "name a new folder");
  }
  const ParamTable table = param_table(config);
  TemporaryFolder temporary(target);
  const auto dtype_of = [&](const ParamSpec& spec) { return hf_stored_dtype(spec, options.dtype); };
  const std::vector<HfShard> shards = plan_hf_folder(table, config, dtype_of, options.max_shard_bytes);
  const auto make = [&](const HfPiece& piece, HfBytes& out) {
    std::vector<float> values(static_cast<size_t>(piece.count));
    for (size_t at = 0; at < values.size(); at += kPiece)
      source(*piece.item->spec, piece.item->offset + piece.begin + static_cast<int64_t>(at),
             std::span(values).subspan(at, std::min<size_t>(values.size() - at, kPiece)));
    out = encode_piece(piece, values);
  };
  for (const HfShard& shard : shards)
    write_hf_shard(temporary.path() / shard.name, shard, kPiece, /*ahead=*/0, make);
  if (shards.size() > 1)
    write_atomically(temporary.path() / "model.safetensors.index.json", hf_index_text(shards));
  write_atomically(temporary.path() / "config.json", hf_config_json(config, options.dtype).dump(2) + "\n");
  copy_tokenizer(options.tokenizer, temporary.path());
  temporary.keep_as(target);
}

}  // namespace dsv3
