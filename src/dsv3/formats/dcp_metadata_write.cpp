#include <fmt/format.h>

#include <stdexcept>

#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/dcp_names.h"
#include "dsv3/formats/pickle.h"
#include "dsv3/formats/torch_dtype.h"

namespace dsv3 {
namespace {

using namespace dcp;
using Items = std::vector<std::pair<PickleValue, PickleValue>>;

PickleValue text(std::string_view value) { return PickleValue::of_text(value); }

PickleValue instance(std::string_view global,
                     std::initializer_list<std::pair<std::string_view, PickleValue>> fields) {
  Items state;
  for (const auto& [name, value] : fields) state.emplace_back(text(name), value);
  return PickleValue::of_instance(global, PickleValue::of_dict(std::move(state)));
}

PickleValue size(const std::vector<int64_t>& dims) {
  std::vector<PickleValue> items;
  for (const int64_t dim : dims) items.push_back(PickleValue::of_int(dim));
  return PickleValue::of_call(kSize, {PickleValue::of_tuple(std::move(items))});
}

PickleValue properties(DType dtype) {
  std::vector<PickleValue> state{PickleValue::of_global(torch_dtype(dtype).global),
                                 PickleValue::of_call(kGetLayout, {text("torch.strided")}),
                                 PickleValue::of_bool(false),  // requires_grad
                                 PickleValue::of_call(kMemoryFormat, {PickleValue::of_int(0)}),  // contiguous
                                 PickleValue::of_bool(false)};                                   // pin_memory
  return PickleValue::of_instance(kProperties, PickleValue::of_tuple(std::move(state)));
}

PickleValue storage_info(std::string_view file, uint64_t offset, uint64_t length) {
  return instance(kStorageInfo, {{"relative_path", text(file)},
                                 {"offset", PickleValue::of_int(static_cast<int64_t>(offset))},
                                 {"length", PickleValue::of_int(static_cast<int64_t>(length))}});
}

PickleValue path_of(const std::string& key, const std::vector<PathPart>& path) {
  if (path.empty()) throw std::logic_error(key + ": an empty path");
  std::vector<PickleValue> parts;
  for (const PathPart& part : path) {
    const auto* name = std::get_if<std::string>(&part);
    parts.push_back(name != nullptr ? text(*name) : PickleValue::of_int(std::get<int64_t>(part)));
  }
  return PickleValue::of_tuple(std::move(parts));
}

}  // namespace

std::string write_dcp_metadata(const DcpMetadata& metadata) {
  Items entries, paths, storage;
  for (const DcpTensor& tensor : metadata.tensors) {
    if (tensor.chunks.empty()) throw std::logic_error(tensor.key + ": a tensor without chunks");
    std::vector<PickleValue> chunks;
    for (const DcpChunk& chunk : tensor.chunks) {
      storage.emplace_back(
          instance(kIndex, {{"fqn", text(tensor.key)},
                            {"index", PickleValue::of_int(static_cast<int64_t>(chunks.size()))},
                            {"offset", size(chunk.offsets)}}),
          storage_info(chunk.file, chunk.offset, chunk.length));
      chunks.push_back(instance(kChunk, {{"offsets", size(chunk.offsets)}, {"sizes", size(chunk.sizes)}}));
    }
    entries.emplace_back(text(tensor.key),
                         instance(kTensor, {{"properties", properties(tensor.dtype)},
                                            {"size", size(tensor.shape)},
                                            {"chunks", PickleValue::of_list(std::move(chunks))}}));
    paths.emplace_back(text(tensor.key), path_of(tensor.key, tensor.path));
  }
  for (const DcpBytes& object : metadata.objects) {
    storage.emplace_back(instance(kIndex, {{"fqn", text(object.key)}, {"index", PickleValue()}}),
                         storage_info(object.file, object.offset, object.length));
    entries.emplace_back(text(object.key), PickleValue::of_instance(kBytes, PickleValue()));
    paths.emplace_back(text(object.key), path_of(object.key, object.path));
  }
  return write_pickle(instance(kMetadata, {{"state_dict_metadata", PickleValue::of_dict(std::move(entries))},
                                           {"planner_data", PickleValue::of_dict(std::move(paths))},
                                           {"storage_data", PickleValue::of_dict(std::move(storage))},
                                           {"storage_meta", PickleValue()},
                                           {"version", text("1.0.0")}}));
}

}  // namespace dsv3
