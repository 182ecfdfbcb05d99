#include <algorithm>

#include "dsv3/convert/convert_output.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/pipeline.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

// A piece of an item; of an FP8 one whole rows of blocks.
struct HfPiece {
  const HfItem* item;
  int64_t begin, count;  // elements of the item
};

std::vector<HfPiece> cut_shard(const HfShard& shard) {
  std::vector<HfPiece> pieces;
  for (const HfItem& item : shard.items) {
    int64_t step = kConvertPiece;
    if (item.is_fp8()) {
      const int64_t band = kFp8Block * item.shape[1];
      step = std::max<int64_t>(kConvertPiece / band, 1) * band;
    }
    for (int64_t begin = 0; begin < item.numel(); begin += step)
      pieces.push_back({&item, begin, std::min(step, item.numel() - begin)});
  }
  return pieces;
}

struct Quantised {
  std::vector<std::byte> bytes;
  std::vector<float> scales;
};

Quantised read_piece(const ConvertSource& source, const HfPiece& piece) {
  const HfItem& item = *piece.item;
  if (!item.is_fp8())
    return {source.read(*item.spec, item.offset + piece.begin, piece.count, item.dtype), {}};
  const int64_t cols = item.shape[1], rows = piece.count / cols;
  const auto width = static_cast<size_t>(item.scale_shape()[1]);
  Quantised out{std::vector<std::byte>(static_cast<size_t>(piece.count)),
                std::vector<float>(static_cast<size_t>((rows + kFp8Block - 1) / kFp8Block) * width)};
  const int64_t begin = item.offset + piece.begin;
  if (source.read_fp8(*item.spec, begin, out.bytes, out.scales)) return out;
  std::vector<float> values(out.bytes.size());
  source.read(*item.spec, begin, values);
  for (int64_t row = 0; row < rows; row += kFp8Block) {
    const auto at = static_cast<size_t>(row * cols);
    const auto count = static_cast<size_t>(std::min(kFp8Block, rows - row) * cols);
    quantise(std::span(values).subspan(at, count), cols, std::span(out.bytes).subspan(at, count),
             std::span(out.scales).subspan(static_cast<size_t>(row / kFp8Block) * width, width));
  }
  return out;
}

FileHashes write_shard(const fs::path& path, const HfShard& shard, const ConvertSource& source,
                       Meter& meter) {
  SafetensorsWriter writer(path, shard.entries());
  const uint64_t scale_bytes = shard.scale_bytes();
  writer.skip(scale_bytes);
  const std::vector<HfPiece> pieces = cut_shard(shard);
  std::vector<float> scales;
  pipeline(
      pieces.size(), [&](size_t i) { return read_piece(source, pieces[i]); },
      [&](size_t, Quantised piece) {
        writer.write(piece.bytes);
        scales.insert(scales.end(), piece.scales.begin(), piece.scales.end());
        meter.add(piece.bytes.size() + piece.scales.size() * sizeof(float));
      });
  if (scale_bytes > 0) writer.fill(0, std::as_bytes(std::span(scales)));
  writer.finish();
  return hash_file(path);  // not on the way: the scales come first in the file and are written last
}

}  // namespace

std::vector<OutputFile> plan_hf_output(const ConvertSource& source, const std::vector<HfShard>& shards) {
  std::vector<OutputFile> files;
  for (const HfShard& shard : shards) {
    OutputFile& file = files.emplace_back();
    file.name = shard.name;
    for (const HfItem& item : shard.items) file.bytes += item.bytes();
    file.write = [&source, &shard](const fs::path& path, Meter& meter) {
      DcpPart part;
      part.files.emplace(shard.name, write_shard(path, shard, source, meter));
      return part;
    };
  }
  return files;
}

}  // namespace dsv3
