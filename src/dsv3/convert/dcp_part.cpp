#include "dsv3/convert/dcp_part.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"

namespace dsv3 {
namespace {

Json to_json(const std::vector<PathPart>& path) {
  Json json = Json::array();
  for (const PathPart& part : path) std::visit([&](const auto& value) { json.push_back(value); }, part);
  return json;
}

std::vector<PathPart> path_of(const Json& json) {
  std::vector<PathPart> path;
  for (const Json& part : json) {
    if (part.is_string()) {
      path.emplace_back(part.get<std::string>());
    } else {
      path.emplace_back(part.get<int64_t>());
    }
  }
  return path;
}

DType dtype_of(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    if (name == dtype_name(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  throw std::out_of_range("dtype " + name);
}

Json to_json(const DcpTensor& tensor) {
  Json chunks = Json::array();
  for (const DcpChunk& chunk : tensor.chunks) {
    chunks.push_back({{"offsets", chunk.offsets},
                      {"sizes", chunk.sizes},
                      {"file", chunk.file},
                      {"offset", chunk.offset},
                      {"length", chunk.length}});
  }
  return {{"key", tensor.key},
          {"path", to_json(tensor.path)},
          {"dtype", dtype_name(tensor.dtype)},
          {"shape", tensor.shape},
          {"chunks", std::move(chunks)}};
}

DcpTensor tensor_of(const Json& json) {
  DcpTensor tensor{.key = json.at("key"),
                   .dtype = dtype_of(json.at("dtype")),
                   .shape = json.at("shape"),
                   .chunks = {},
                   .path = path_of(json.at("path"))};
  for (const Json& chunk : json.at("chunks")) {
    tensor.chunks.push_back({.offsets = chunk.at("offsets"),
                             .sizes = chunk.at("sizes"),
                             .file = chunk.at("file"),
                             .offset = chunk.at("offset"),
                             .length = chunk.at("length")});
  }
  return tensor;
}

}  // namespace

void DcpPart::add(DcpPart&& other) {
  std::ranges::move(other.metadata.tensors, std::back_inserter(metadata.tensors));
  std::ranges::move(other.metadata.objects, std::back_inserter(metadata.objects));
  files.merge(other.files);
  if (!other.files.empty()) throw std::logic_error(other.files.begin()->first + ": written twice");
}

std::string DcpPart::text() const {
  Json json = {{"files", Json::object()}, {"tensors", Json::array()}, {"objects", Json::array()}};
  for (const auto& [name, hashes] : files) {
    Json blocks = Json::array();
    for (const Hash128& block : hashes.blocks) blocks.push_back(to_hex(block));
    json["files"][name] = {{"size", hashes.size}, {"blocks", std::move(blocks)}};
  }
  for (const DcpTensor& tensor : metadata.tensors) json["tensors"].push_back(to_json(tensor));
  for (const DcpBytes& object : metadata.objects) {
    json["objects"].push_back({{"key", object.key},
                               {"path", to_json(object.path)},
                               {"file", object.file},
                               {"offset", object.offset},
                               {"length", object.length}});
  }
  return json.dump();
}

DcpPart DcpPart::parse(std::string_view text, std::string_view file) {
  const Json json = parse_json(text, file);
  try {
    DcpPart part;
    for (const auto& [name, value] : json.at("files").items()) {
      FileHashes hashes{.size = value.at("size"), .blocks = {}};
      for (const Json& block : value.at("blocks"))
        hashes.blocks.push_back(hash_from_hex(block.get<std::string>()).value());
      part.files.emplace(name, std::move(hashes));
    }
    for (const Json& tensor : json.at("tensors")) part.metadata.tensors.push_back(tensor_of(tensor));
    for (const Json& object : json.at("objects")) {
      part.metadata.objects.push_back({.key = object.at("key"),
                                       .file = object.at("file"),
                                       .offset = object.at("offset"),
                                       .length = object.at("length"),
                                       .path = path_of(object.at("path"))});
    }
    return part;
  } catch (const std::exception& error) {
    throw InputError(file, "", std::string("is no part of a checkpoint: ") + error.what());
  }
}

DcpMetadata joined(DcpMetadata metadata) {
  std::ranges::stable_sort(metadata.tensors, {}, &DcpTensor::key);
  std::ranges::sort(metadata.objects, {}, &DcpBytes::key);
  std::vector<DcpTensor> tensors;
  for (DcpTensor& next : metadata.tensors) {
    if (tensors.empty() || tensors.back().key != next.key) {
      tensors.push_back(std::move(next));
      continue;
    }
    DcpTensor& same = tensors.back();
    if (same.dtype != next.dtype || same.shape != next.shape)
      throw std::logic_error(next.key + ": two shapes or dtypes");
    std::ranges::move(next.chunks, std::back_inserter(same.chunks));
  }
  metadata.tensors = std::move(tensors);
  return metadata;
}

}  // namespace dsv3
