#include "dsv3/convert/convert_output.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/hf_writer.h"
#include "dsv3/convert/pipeline.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

HfBytes read_piece(const ConvertSource& source, const HfPiece& piece) {
  const HfItem& item = *piece.item;
  const int64_t begin = item.offset + piece.begin;
  if (!item.is_fp8()) return {source.read(*item.spec, begin, piece.count, item.dtype), {}};
  const auto width = item.scale_shape()[1], rows = piece.count / item.shape[1];
  HfBytes stored{std::vector<std::byte>(static_cast<size_t>(piece.count)),
                 std::vector<float>(static_cast<size_t>((rows + kFp8Block - 1) / kFp8Block * width))};
  if (source.read_fp8(*item.spec, begin, stored.bytes, stored.scales)) return stored;
  std::vector<float> values(stored.bytes.size());
  source.read(*item.spec, begin, values);
  return encode_piece(piece, values);
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
      part.files.emplace(shard.name, write_hf_shard(
                                         path, shard, kConvertPiece, kReadAhead,
                                         [&](const HfPiece& piece) { return read_piece(source, piece); },
                                         [&](uint64_t bytes) { meter.add(bytes); }));
      return part;
    };
  }
  return files;
}

}  // namespace dsv3
