#include <algorithm>
#include <stdexcept>

#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/dcp_names.h"
#include "dsv3/formats/pickle_writer.h"
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
  PickleWriter out;
  out.begin_instance(std::string(kMetadata));
  out.text("state_dict_metadata");
  out.begin_dict();
  for (const DcpTensor& tensor : metadata.tensors) {
    if (tensor.chunks.empty()) throw std::logic_error(tensor.key + ": a tensor without chunks");
    std::vector<PickleValue> chunks;
    for (const DcpChunk& chunk : tensor.chunks) {
      chunks.push_back(instance(kChunk, {{"offsets", size(chunk.offsets)}, {"sizes", size(chunk.sizes)}}));
    }
    out.text(tensor.key);
    out.save(instance(kTensor, {{"properties", properties(tensor.dtype)},
                                {"size", size(tensor.shape)},
                                {"chunks", PickleValue::of_list(std::move(chunks))}}));
  }
  for (const DcpBytes& object : metadata.objects) {
    out.text(object.key);
    out.save(PickleValue::of_instance(kBytes, PickleValue()));
  }
  out.end_dict();

  out.text("planner_data");
  out.begin_dict();
  const auto save_path = [&](const auto& entry) {
    out.text(entry.key);
    out.save(path_of(entry.key, entry.path));
  };
  std::ranges::for_each(metadata.tensors, save_path);
  std::ranges::for_each(metadata.objects, save_path);
  out.end_dict();

  out.text("storage_data");
  out.begin_dict();
  for (const DcpTensor& tensor : metadata.tensors) {
    int64_t index = 0;
    for (const DcpChunk& chunk : tensor.chunks) {
      out.save(instance(kIndex, {{"fqn", text(tensor.key)},
                                 {"index", PickleValue::of_int(index++)},
                                 {"offset", size(chunk.offsets)}}));
      out.save(storage_info(chunk.file, chunk.offset, chunk.length));
    }
  }
  for (const DcpBytes& object : metadata.objects) {
    out.save(instance(kIndex, {{"fqn", text(object.key)}, {"index", PickleValue()}}));
    out.save(storage_info(object.file, object.offset, object.length));
  }
  out.end_dict();

  out.text("storage_meta");
  out.save(PickleValue());
  out.text("version");
  out.text("1.0.0");
  out.end_instance();
  return out.finish();
}

}  // namespace dsv3
