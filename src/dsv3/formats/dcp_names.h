#pragma once
// The Python classes in a `.metadata`, as globals of pickle.h.

#include <string_view>

namespace dsv3::dcp {

constexpr std::string_view kMetadata = "torch.distributed.checkpoint.metadata Metadata";
constexpr std::string_view kTensor = "torch.distributed.checkpoint.metadata TensorStorageMetadata";
constexpr std::string_view kChunk = "torch.distributed.checkpoint.metadata ChunkStorageMetadata";
constexpr std::string_view kBytes = "torch.distributed.checkpoint.metadata BytesStorageMetadata";
constexpr std::string_view kProperties = "torch.distributed.checkpoint.metadata TensorProperties";
constexpr std::string_view kMemoryFormat = "torch.distributed.checkpoint.metadata _MEM_FORMAT_ENCODING";
constexpr std::string_view kIndex = "torch.distributed.checkpoint.metadata MetadataIndex";
constexpr std::string_view kStorageMeta = "torch.distributed.checkpoint.metadata StorageMeta";
constexpr std::string_view kStorageInfo = "torch.distributed.checkpoint.filesystem _StorageInfo";
// Before 2.3.
constexpr std::string_view kOldProperties =
    "torch.distributed._shard.sharded_tensor.metadata TensorProperties";
constexpr std::string_view kOldMemoryFormat =
    "torch.distributed._shard.sharded_tensor.metadata MEM_FORMAT_ENCODING";
constexpr std::string_view kSize = "torch Size";
constexpr std::string_view kGetLayout = "torch.serialization _get_layout";

}  // namespace dsv3::dcp
