#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dsv3/base/error.h"
#include "dsv3/convert/convert_output.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/hf_writer.h"
#include "dsv3/convert/pipeline.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

void read_piece(const ConvertSource& source, const HfPiece& piece, HfBytes& out) {
  const HfItem& item = *piece.item;
  const int64_t begin = item.offset + piece.begin;
  if (!item.is_fp8()) {
    out.scales.clear();
    return source.read(*item.spec, begin, piece.count, item.dtype, out.bytes);
  }
  const auto width = item.scale_shape()[1], rows = piece.count / item.shape[1];
  out.bytes.resize(static_cast<size_t>(piece.count));
  out.scales.resize(static_cast<size_t>((rows + kFp8Block - 1) / kFp8Block * width));
  if (source.read_fp8(*item.spec, begin, out.bytes, out.scales)) return;
  std::vector<float> values(out.bytes.size());
  source.read(*item.spec, begin, values);
  const auto lost = std::ranges::find_if_not(values, [](float value) { return std::isfinite(value); });
  if (lost != values.end())
    throw InputError(source.file(), item.name,
                     fmt::format("element {} is {}, which block FP8 cannot say",
                                 piece.begin + (lost - values.begin()), *lost),
                     "keep it in BF16 or F32");
  out = encode_piece(piece, values);
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
      part.files.emplace(shard.name,
                         write_hf_shard(
                             path, shard, kConvertPiece, kReadAhead,
                             [&](const HfPiece& piece, HfBytes& out) { read_piece(source, piece, out); },
                             [&](uint64_t bytes) { meter.add(bytes); }));
      return part;
    };
  }
  return files;
}

}  // namespace dsv3
