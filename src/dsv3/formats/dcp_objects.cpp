#include "dsv3/formats/dcp_objects.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/formats/dcp_names.h"
#include "dsv3/formats/torch_dtype.h"

namespace dsv3::dcp {

std::optional<std::string> take_fields(const PickleValue& object, std::initializer_list<Wanted> wanted) {
  const PickleValue* state = object.state();
  if (state == nullptr || !state->is(PickleKind::dict)) return "an object without its fields";
  const auto items = state->items();
  if (items.size() > 2 * wanted.size()) return "an object with too many fields";
  for (size_t i = 0; i < items.size(); i += 2) {
    const auto* it = items[i].is(PickleKind::text)
                         ? std::ranges::find(wanted, items[i].text(), &Wanted::first)
                         : wanted.end();
    if (it == wanted.end()) return "an object with an unknown field";
    if (*it->second != nullptr) return fmt::format("{} twice", it->first);
    *it->second = &items[i + 1];
  }
  return std::nullopt;
}

// (dtype, layout, requires_grad, memory format, pin_memory)
std::optional<DType> dtype_of(const PickleValue* properties, std::string& fault) {
  const bool is_one = properties != nullptr &&
                      (properties->is_instance(kProperties) || properties->is_instance(kOldProperties));
  const PickleValue* state = is_one ? properties->state() : nullptr;
  if (state == nullptr || !state->is(PickleKind::tuple) || state->items().size() != 5) {
    fault = "has no TensorProperties";
    return std::nullopt;
  }
  const PickleValue &type = state->items()[0], &layout = state->items()[1];
  if (!layout.is_call(kGetLayout) || layout.args().size() != 1 || !layout.args()[0].is(PickleKind::text) ||
      layout.args()[0].text() != "torch.strided") {
    fault = "a layout that is not torch.strided is not supported";
    return std::nullopt;
  }
  if (!type.is(PickleKind::global)) {
    fault = "a dtype that is none";
    return std::nullopt;
  }
  const auto dtype = dtype_of_torch(type.text());
  if (!dtype) fault = fmt::format("dtype {} is not supported", type.text());
  return dtype;
}

bool is_untransformed(const PickleValue* transforms) {
  return transforms == nullptr || transforms->is(PickleKind::none) ||
         ((transforms->is(PickleKind::list) || transforms->is(PickleKind::tuple)) &&
          transforms->items().empty());
}

std::optional<PickleFolded> DcpObjects::fold(const PickleValue& object) {
  if (object.is_call(kSize)) return fold_size(object);
  if (object.is_instance(kChunk)) return fold_chunk(object);
  if (object.is_instance(kIndex)) return fold_index(object);
  if (object.is_instance(kStorageInfo)) return fold_info(object);
  if (object.is_instance(kTensor)) return fold_tensor(object);
  return std::nullopt;
}

std::vector<int64_t> DcpObjects::dims(uint32_t number) const {
  const Size& size = sizes_[number];
  return {size.dims.begin(), size.dims.begin() + size.rank};
}

std::optional<std::vector<int64_t>> DcpObjects::size_of(const PickleValue* value) const {
  if (const auto number = size_number(value)) return dims(*number);
  if (value != nullptr && (value->is_call(kSize) || value->is_instance(kSize))) {
    value = value->args().size() == 1 && value->state() == nullptr ? &value->args()[0] : nullptr;
  }
  if (value == nullptr || !value->is(PickleKind::tuple) || value->items().size() > kMaxDims)
    return std::nullopt;
  std::vector<int64_t> out;
  for (const PickleValue& item : value->items()) {
    if (!item.is(PickleKind::integer) || item.integer() < 0) return std::nullopt;
    out.push_back(item.integer());
  }
  return out;
}

std::optional<uint32_t> DcpObjects::size_number(const PickleValue* value) const {
  const PickleFolded* folded = value == nullptr ? nullptr : value->folded();
  return folded != nullptr && folded->kind == kSizes ? std::optional(folded->index) : std::nullopt;
}

std::optional<PickleFolded> DcpObjects::fold_size(const PickleValue& object) {
  if (object.args().size() != 1 || !object.args()[0].is(PickleKind::tuple)) return std::nullopt;
  const auto items = object.args()[0].items();
  Size size{.dims = {}, .rank = static_cast<uint32_t>(items.size())};
  if (items.size() > size.dims.size()) return std::nullopt;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is(PickleKind::integer) || items[i].integer() < 0) return std::nullopt;
    size.dims[i] = items[i].integer();
  }
  return keep(size, kSizes, sizes_);
}

std::optional<PickleFolded> DcpObjects::fold_chunk(const PickleValue& object) {
  const PickleValue *offsets = nullptr, *sizes = nullptr;
  if (take_fields(object, {{"offsets", &offsets}, {"sizes", &sizes}})) return std::nullopt;
  const auto at = size_number(offsets), extent = size_number(sizes);
  if (!at || !extent) return std::nullopt;
  return keep(Chunk{*at, *extent}, kChunks, chunks_);
}

std::optional<PickleFolded> DcpObjects::fold_index(const PickleValue& object) {
  const PickleValue *key = nullptr, *offset = nullptr, *hint = nullptr;
  if (take_fields(object, {{"fqn", &key}, {"offset", &offset}, {"index", &hint}})) return std::nullopt;
  const bool of_object = offset == nullptr || offset->is(PickleKind::none);
  const auto at = size_number(offset);
  if (key == nullptr || !key->is(PickleKind::text) || !(of_object || at)) return std::nullopt;
  return keep(Index{*key, at}, kIndexes, indexes_);
}

std::optional<PickleFolded> DcpObjects::fold_info(const PickleValue& object) {
  const PickleValue *file = nullptr, *offset = nullptr, *length = nullptr, *transforms = nullptr;
  if (take_fields(object, {{"relative_path", &file},
                           {"offset", &offset},
                           {"length", &length},
                           {"transform_descriptors", &transforms}}) ||
      !is_untransformed(transforms))
    return std::nullopt;
  const auto is = [](const PickleValue* value, PickleKind kind) {
    return value != nullptr && value->is(kind);
  };
  if (!is(file, PickleKind::text) || !is(offset, PickleKind::integer) || !is(length, PickleKind::integer))
    return std::nullopt;
  return keep(StorageInfo{*file, offset->integer(), length->integer()}, kInfos, infos_);
}

std::optional<PickleFolded> DcpObjects::fold_tensor(const PickleValue& object) {
  const PickleValue *properties = nullptr, *size = nullptr, *list = nullptr;
  std::string fault;
  if (take_fields(object, {{"properties", &properties}, {"size", &size}, {"chunks", &list}}))
    return std::nullopt;
  const auto dtype = dtype_of(properties, fault);
  const auto number = size_number(size);
  if (!dtype || !number || list == nullptr || !list->is(PickleKind::list)) return std::nullopt;
  return keep(Tensor{*dtype, *number, *list}, kTensors, tensors_);
}

}  // namespace dsv3::dcp
