#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dsv3/convert/convert_output.h"
#include "dsv3/convert/dcp_writer.h"
#include "dsv3/convert/pipeline.h"
#include "dsv3/convert/rectangles.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

struct DcpPiece {
  std::string key;
  const ParamSpec* spec;
  DType dtype;
  Rectangle part;
};
using DcpShard = std::vector<DcpPiece>;

struct DcpBytesRead {
  std::vector<std::byte> bytes;
  TorchItem item;
};

// As many elements from `begin` on as travel at a time and are one rectangle: slices of the first dim, or
// rows within a slice that is larger.
int64_t next_count(const ParamSpec& spec, int64_t begin) {
  const int64_t slice = spec.numel() / spec.shape[0], row = spec.shape.back();
  if (slice <= kConvertPiece) return std::min(kConvertPiece / slice * slice, spec.numel() - begin);
  return std::min(std::max<int64_t>(kConvertPiece / row, 1) * row, slice - begin % slice);
}

std::vector<DcpShard> plan_dcp_folder(const ConvertSource& source, const DTypeOf& dtype_of,
                                      uint64_t max_bytes) {
  std::vector<DcpShard> files;
  uint64_t size = 0;
  auto plan = [&](const std::string& key, const ParamSpec& spec) {
    const DType dtype = dtype_of(spec);
    for (int64_t begin = 0; begin < spec.numel();) {
      const int64_t count = next_count(spec, begin);
      const auto bytes = static_cast<uint64_t>(count * dtype_size(dtype));
      if (files.empty() || size + bytes > max_bytes) {
        files.emplace_back();
        size = 0;
      }
      size += bytes;
      for (Rectangle& part : rectangles(spec.shape, begin, count))
        files.back().push_back({key, &spec, dtype, std::move(part)});
      begin += count;
    }
  };
  for (const ParamSpec& spec : source.table().params)
    for (const std::string& key : dcp_keys(spec, source.config())) plan(key, spec);
  return files;
}

DcpPart write_dcp_file(const fs::path& path, const DcpShard& shard, const ConvertSource& source,
                       Meter& meter) {
  DcpFileWriter writer(path);
  pipeline<DcpBytesRead>(
      shard.size(), kReadAhead,
      [&](size_t i, DcpBytesRead& read) {
        const DcpPiece& piece = shard[i];
        source.read(*piece.spec, piece.part.begin, piece.part.count, piece.dtype, read.bytes);
        read.item = make_torch_tensor(piece.dtype, piece.part.sizes, read.bytes);
      },
      [&](size_t i, const DcpBytesRead& read) {
        const DcpPiece& piece = shard[i];
        writer.tensor(piece.key, {piece.key}, piece.dtype, piece.spec->shape, piece.part.offsets,
                      piece.part.sizes, read.bytes, read.item);
        meter.add(read.bytes.size());
      });
  return writer.finish();
}

}  // namespace

std::vector<OutputFile> plan_dcp_output(const ConvertSource& source, const DTypeOf& dtype_of,
                                        uint64_t max_bytes) {
  std::vector<OutputFile> files;
  for (DcpShard& shard : plan_dcp_folder(source, dtype_of, max_bytes)) {
    OutputFile& file = files.emplace_back();
    file.name = fmt::format("__0_{}.distcp", files.size() - 1);
    for (const DcpPiece& piece : shard)
      file.bytes += static_cast<uint64_t>(piece.part.count * dtype_size(piece.dtype));
    file.write = [&source, shard = std::move(shard)](const fs::path& path, Meter& meter) {
      return write_dcp_file(path, shard, source, meter);
    };
  }
  return files;
}

}  // namespace dsv3
