#include "dsv3/convert/hf_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/hf_plan.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 18;  // elements asked for at a time

// Asks for the elements of an item in pieces: as many at once as consumers of values (rows of blocks, say)
// want.
void ask(const HfItem& item, const ParamSource& source, int64_t begin, std::span<float> out) {
  for (size_t at = 0; at < out.size(); at += kPiece) {
    const auto piece = out.subspan(at, std::min<size_t>(out.size() - at, kPiece));
    source(*item.spec, item.offset + begin + static_cast<int64_t>(at), piece);
  }
}

void write_plain(const HfItem& item, const ParamSource& source, SafetensorsWriter& writer) {
  const int64_t numel = item.numel();
  std::vector<float> values(static_cast<size_t>(std::min(numel, kPiece)));
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_size(item.dtype)));
  for (int64_t begin = 0; begin < numel; begin += kPiece) {
    const auto count = static_cast<size_t>(std::min(numel - begin, kPiece));
    const auto piece = std::span(values).first(count);
    const auto out = std::span(bytes).first(count * static_cast<size_t>(dtype_size(item.dtype)));
    ask(item, source, begin, piece);
    encode(piece, item.dtype, out);
    writer.write(out);
  }
}

// A row of blocks in memory at a time, and the scales of the tensor. Returns the scales.
std::vector<float> write_fp8(const HfItem& item, const ParamSource& source, SafetensorsWriter& writer) {
  const int64_t rows = item.shape[0], cols = item.shape[1], band = std::min(rows, kFp8Block);
  const auto width = static_cast<size_t>(item.scale_shape()[1]);
  std::vector<float> values(static_cast<size_t>(band * cols)), scales(item.scale_bytes() / sizeof(float));
  std::vector<std::byte> codes(values.size());
  for (int64_t row = 0; row < rows; row += band) {
    const auto count = static_cast<size_t>(std::min(band, rows - row) * cols);
    const auto block_row = static_cast<size_t>(row / kFp8Block);
    ask(item, source, row * cols, std::span(values).first(count));
    quantise(std::span(values).first(count), cols, std::span(codes).first(count),
             std::span(scales).subspan(block_row * width, width));
    writer.write(std::span(codes).first(count));
  }
  return scales;
}

void write_shard(const fs::path& path, const HfShard& shard, const ParamSource& source) {
  SafetensorsWriter writer(path, shard.entries());
  writer.skip(shard.scale_bytes());  // they come first in the file and are known last
  uint64_t filled = 0;
  for (const HfItem& item : shard.items) {
    if (!item.is_fp8()) {
      write_plain(item, source, writer);
      continue;
    }
    const std::vector<float> scales = write_fp8(item, source, writer);
    writer.fill(filled, std::as_bytes(std::span(scales)));
    filled += item.scale_bytes();
  }
  writer.finish();
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
  for (const HfShard& shard : shards) write_shard(temporary.path() / shard.name, shard, source);
  if (shards.size() > 1)
    write_atomically(temporary.path() / "model.safetensors.index.json", hf_index_text(shards));
  write_atomically(temporary.path() / "config.json", hf_config_json(config, options.dtype).dump(2) + "\n");
  temporary.keep_as(target);
}

}  // namespace dsv3
