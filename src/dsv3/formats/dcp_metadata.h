#pragma once
// The `.metadata` of a distributed checkpoint (torch.distributed.checkpoint): which tensors and objects it
// holds and where in its files. Source: torch/distributed/checkpoint/{metadata,filesystem}.py, PyTorch 2.0
// to 2.14.

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "dsv3/base/file.h"
#include "dsv3/formats/dtype.h"

namespace dsv3 {

// A step of the path to a value in the saved dict: a key, or the index in a list.
using PathPart = std::variant<std::string, int64_t>;

struct DcpChunk {
  std::vector<int64_t> offsets, sizes;  // the box of the tensor that it holds
  std::string file;                     // beside .metadata
  uint64_t offset = 0, length = 0;      // bytes of the file: an archive of torch.save (torch_item.h)
};

struct DcpTensor {
  std::string key;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::vector<DcpChunk> chunks;  // cover the shape without overlap; some may be empty
  std::vector<PathPart> path;    // joined by dots, it is the key
};

struct DcpBytes {
  std::string key;
  std::string file;
  uint64_t offset = 0, length = 0;
  std::vector<PathPart> path;
};

struct DcpMetadata {
  std::vector<DcpTensor> tensors;  // sorted by key
  std::vector<DcpBytes> objects;   // sorted by key
};

// Reads and checks all of it; a file without paths of keys gives paths of one part. InputError{file, key or
// byte, why} on what pickle.h refuses, another version of the format, file names that are no plain names,
// dtypes that DType does not have, layouts but strided, chunks that do not tile their tensor (box_cover.h),
// chunks without storage and storage without chunk, ranges that overlap in a file or leave int64, transforms.
// Whether the files exist and are long enough is seen when they are read.
DcpMetadata read_dcp_metadata(const InputFile& file);
DcpMetadata read_dcp_metadata(const std::filesystem::path& path);

// The bytes of `.metadata`, version 1.0.0, as torch.distributed.checkpoint reads it. Each tensor has a chunk
// at least, and its path is not empty.
std::string write_dcp_metadata(const DcpMetadata& metadata);

}  // namespace dsv3
