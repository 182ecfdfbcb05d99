#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/formats/box_cover.h"
#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/dcp_names.h"
#include "dsv3/formats/dcp_objects.h"
#include "dsv3/formats/pickle.h"
#include "dsv3/formats/safetensors_header.h"
#include "dsv3/formats/torch_dtype.h"

namespace dsv3 {
namespace {

using namespace dcp;

constexpr uint64_t kMaxFile = 2ull << 30;
constexpr size_t kMaxKey = 4096;
constexpr size_t kMaxFileName = 255;

// Dtypes that are named in the refusal of a tensor rather than as a global.
constexpr std::string_view kOtherDTypes[] = {
    "torch complex32",       "torch complex64",       "torch complex128",     "torch float8_e5m2",
    "torch float8_e4m3fnuz", "torch float8_e5m2fnuz", "torch float8_e8m0fnu", "torch float4_e2m1fn_x2",
    "torch quint8",          "torch qint8",           "torch qint32"};

std::vector<std::string_view> allowed_globals() {
  std::vector<std::string_view> out{
      kMetadata, kTensor, kChunk, kBytes, kProperties, kMemoryFormat, kIndex, kStorageMeta, kStorageInfo,
      kOldProperties, kOldMemoryFormat, kSize, kGetLayout,
      // An enum's value by name; StorageMeta's folder in several versions of Python.
      "builtins getattr", "__builtin__ getattr", "collections OrderedDict", "pathlib PosixPath",
      "pathlib._local PosixPath"};
  for (const TorchDType& type : torch_dtypes()) out.push_back(type.global);
  out.insert(out.end(), std::begin(kOtherDTypes), std::end(kOtherDTypes));
  return out;
}

// An entry of storage_data. key and file point into the pickle.
struct Storage {
  const std::string* key;
  std::optional<std::vector<int64_t>> at;  // offsets of the chunk; nothing for an object
  std::string_view file;
  uint64_t offset, length;
  bool used = false;

  auto index() const { return std::tie(*key, at); }
  auto place() const { return std::tie(file, offset); }
};

class MetadataReader {
 public:
  explicit MetadataReader(const InputFile& file) : file_(file) {}

  DcpMetadata read() {
    if (file_.size() > kMaxFile) {
      fail("", fmt::format("{} bytes, at most {} expected", file_.size(), kMaxFile));
    }
    const auto globals = allowed_globals();
    const PickleValue root = parse_pickle(
        file_, 0, file_.size(), {},
        {.globals = globals, .fold = [this](const PickleValue& object) { return objects_.fold(object); }});
    if (!root.is_instance(kMetadata)) fail("", "is no metadata of a distributed checkpoint");
    const PickleValue *entries = nullptr, *paths = nullptr, *storage = nullptr, *version = nullptr,
                      *ignored = nullptr;
    fields(root, "",
           {{"state_dict_metadata", &entries},
            {"planner_data", &paths},
            {"storage_data", &storage},
            {"storage_meta", &ignored},
            {"version", &version}});
    if (version != nullptr && !version->is(PickleKind::none) &&
        !(version->is(PickleKind::text) && version->text() == "1.0.0")) {
      fail("version", "expected 1.0.0");
    }
    if (entries == nullptr || !entries->is(PickleKind::dict)) fail("state_dict_metadata", "expected a dict");
    if (storage == nullptr || !storage->is(PickleKind::dict)) fail("storage_data", "expected a dict");
    read_storage(*storage);
    read_entries(*entries);
    if (paths == nullptr || paths->is(PickleKind::none)) {
      for (DcpTensor& tensor : out_.tensors) tensor.path = {tensor.key};
      for (DcpBytes& object : out_.objects) object.path = {object.key};
    } else {
      read_paths(*paths);
    }
    for (const Storage& entry : storage_) {
      if (!entry.used) fail(*entry.key, "storage_data of a chunk that the tensor does not have");
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string_view field, std::string_view why, std::string_view hint = {}) const {
    throw InputError(file_.path(), field, why, hint);
  }

  void fields(const PickleValue& object, std::string_view field, std::initializer_list<Wanted> wanted) const {
    if (const auto fault = take_fields(object, wanted)) fail(field, *fault);
  }

  void read_storage(const PickleValue& storage) {
    const auto items = storage.items();
    storage_.reserve(items.size() / 2);
    for (size_t i = 0; i < items.size(); i += 2) {
      auto [key, offsets] = index_of(items[i]);
      storage_.push_back(storage_info(items[i + 1], *key, std::move(offsets)));
    }
    std::ranges::sort(storage_, {}, &Storage::place);
    for (size_t i = 1; i < storage_.size(); ++i) {
      const Storage &a = storage_[i - 1], &b = storage_[i];
      if (a.file == b.file && a.offset + a.length > b.offset) {
        fail(*b.key,
             fmt::format(
                 "bytes {} + {} of {} are also those of {}{}", b.offset, b.length, b.file, *a.key,
                 a.offset == 0 && b.offset == 0
                     ? " (written as SerializationFormat.SAFETENSORS? only torch.save's items are read)"
                     : ""));
      }
    }
    std::ranges::sort(storage_, {}, &Storage::index);
    const auto twin = std::ranges::adjacent_find(storage_, {}, &Storage::index);
    if (twin != storage_.end()) fail(*twin->key, "storage_data: one chunk twice");
  }

  // The key of a MetadataIndex, and the offsets of its chunk; nothing for an object.
  std::pair<const std::string*, std::optional<std::vector<int64_t>>> index_of(
      const PickleValue& value) const {
    if (const DcpObjects::Index* index = objects_.index(value)) {
      check_key(index->fqn.text());
      if (!index->offset) return {&index->fqn.text(), std::nullopt};
      return {&index->fqn.text(), objects_.dims(*index->offset)};
    }
    if (!value.is_instance(kIndex)) fail("storage_data", "a key that is no MetadataIndex");
    const PickleValue *key = nullptr, *at = nullptr, *hint = nullptr;
    fields(value, "storage_data", {{"fqn", &key}, {"offset", &at}, {"index", &hint}});
    if (key == nullptr || !key->is(PickleKind::text)) fail("storage_data", "a key without fqn");
    check_key(key->text());
    if (at == nullptr || at->is(PickleKind::none)) return {&key->text(), std::nullopt};
    auto offsets = objects_.size_of(at);
    if (!offsets) fail(key->text(), "storage_data: an offset that is none");
    return {&key->text(), std::move(offsets)};
  }

  Storage storage_info(const PickleValue& value, const std::string& key,
                       std::optional<std::vector<int64_t>> at) const {
    if (const DcpObjects::StorageInfo* info = objects_.storage_info(value))
      return checked({&key, std::move(at), info->file.text(), 0, 0}, info->offset, info->length);
    if (!value.is_instance(kStorageInfo)) fail(key, "storage_data: no _StorageInfo");
    const PickleValue *name = nullptr, *offset = nullptr, *length = nullptr, *transforms = nullptr;
    fields(value, key,
           {{"relative_path", &name},
            {"offset", &offset},
            {"length", &length},
            {"transform_descriptors", &transforms}});
    if (!is_untransformed(transforms)) {
      fail(key, "is stored transformed (transform_descriptors), which is not supported",
           "save the checkpoint without extensions");
    }
    if (name == nullptr || !name->is(PickleKind::text)) fail(key, "storage_data without relative_path");
    const auto number = [](const PickleValue* v) {
      return v != nullptr && v->is(PickleKind::integer) ? v->integer() : int64_t{-1};
    };
    return checked({&key, std::move(at), name->text(), 0, 0}, number(offset), number(length));
  }

  // With its bytes, when it has a plain file name and they are possible.
  Storage checked(Storage storage, int64_t begin, int64_t size) const {
    const std::string_view file = storage.file;
    if (file.size() > kMaxFileName || !is_plain_name(file) || file == "." || file == ".." ||
        file.find('/') != file.npos) {
      fail(*storage.key, fmt::format("relative_path \"{}\" is no plain file name", printable(file, 100)),
           "files stand beside .metadata");
    }
    if (begin < 0 || size <= 0 || !checked_add(begin, size))
      fail(*storage.key, fmt::format("storage_data: bytes {} + {} of {}", begin, size, file));
    storage.offset = static_cast<uint64_t>(begin);
    storage.length = static_cast<uint64_t>(size);
    return storage;
  }

  void check_key(const std::string& key) const {
    if (!is_plain_name(key) || key.size() > kMaxKey) {
      fail(key,
           fmt::format("a key that is empty, longer than {} bytes or holds control characters", kMaxKey));
    }
  }

  // The entry of storage_data for a chunk of key, or for the object when at is nothing.
  Storage& find_storage(const std::string& key, const std::optional<std::vector<int64_t>>& at) {
    const auto wanted = std::tie(key, at);
    const auto it = std::ranges::lower_bound(storage_, wanted, {}, &Storage::index);
    if (it == storage_.end() || it->index() != wanted) {
      fail(key, at ? fmt::format("no storage_data for the chunk at [{}]", fmt::join(*at, ", "))
                   : std::string("no storage_data"));
    }
    if (it->used) fail(key, fmt::format("two chunks at [{}]", fmt::join(at.value(), ", ")));
    it->used = true;
    return *it;
  }

  void read_entries(const PickleValue& entries) {
    // By key, before anything is copied: a hostile file may have the same key a million times.
    std::vector<std::pair<const std::string*, const PickleValue*>> sorted;
    const auto items = entries.items();
    sorted.reserve(items.size() / 2);
    for (size_t i = 0; i < items.size(); i += 2) {
      if (!items[i].is(PickleKind::text)) fail("state_dict_metadata", "a key that is no text");
      check_key(items[i].text());
      sorted.emplace_back(&items[i].text(), &items[i + 1]);
    }
    const auto name = [](const auto& entry) -> const std::string& { return *entry.first; };
    std::ranges::sort(sorted, {}, name);
    const auto twin = std::ranges::adjacent_find(sorted, {}, name);
    if (twin != sorted.end()) fail(name(*twin), "duplicate key");
    for (const auto& [key, value] : sorted) {
      if (value->is_instance(kTensor) || objects_.tensor(*value) != nullptr) {
        read_tensor(*key, *value);
      } else if (value->is_instance(kBytes)) {
        const Storage& found = find_storage(*key, std::nullopt);
        out_.objects.push_back({*key, std::string(found.file), found.offset, found.length, {}});
      } else {
        fail(*key, "is neither a tensor nor an object");
      }
    }
  }

  void read_tensor(const std::string& key, const PickleValue& value) {
    DcpTensor tensor;
    tensor.key = key;
    std::optional<std::vector<int64_t>> shape;
    const PickleValue* chunks = nullptr;
    if (const DcpObjects::Tensor* folded = objects_.tensor(value)) {
      tensor.dtype = folded->dtype;
      shape = objects_.dims(folded->size);
      chunks = &folded->chunks;
    } else {
      const PickleValue *properties = nullptr, *size = nullptr;
      fields(value, key, {{"properties", &properties}, {"size", &size}, {"chunks", &chunks}});
      std::string fault;
      const auto dtype = dtype_of(properties, fault);
      if (!dtype) fail(key, fault);
      tensor.dtype = *dtype;
      shape = objects_.size_of(size);
    }
    const auto numel = shape ? checked_numel(*shape) : std::nullopt;
    if (!numel || !checked_mul(*numel, dtype_size(tensor.dtype)))
      fail(key, "a size that is none, or overflows");
    tensor.shape = std::move(*shape);
    if (chunks == nullptr || !chunks->is(PickleKind::list) || chunks->items().empty())
      fail(key, "has no chunks");
    // Each chunk needs storage of its own. A list that many tensors share stops here.
    num_chunks_ += chunks->items().size();
    if (num_chunks_ > storage_.size()) fail(key, "more chunks than storage_data");
    std::vector<Box> boxes;
    boxes.reserve(chunks->items().size());
    for (const PickleValue& chunk : chunks->items()) boxes.push_back(box_of(key, chunk));
    if (const auto fault = find_box_fault(boxes, tensor.shape)) fail(key, *fault);
    for (Box& box : boxes) {
      std::optional<std::vector<int64_t>> at(box.offsets);
      const Storage& found = find_storage(key, at);
      tensor.chunks.push_back({std::move(box.offsets), std::move(box.sizes), std::string(found.file),
                               found.offset, found.length});
    }
    out_.tensors.push_back(std::move(tensor));
  }

  Box box_of(const std::string& key, const PickleValue& chunk) const {
    if (const DcpObjects::Chunk* folded = objects_.chunk(chunk))
      return {objects_.dims(folded->offsets), objects_.dims(folded->sizes)};
    const PickleValue *offsets = nullptr, *sizes = nullptr;
    if (!chunk.is_instance(kChunk)) fail(key, "a chunk that is none");
    fields(chunk, key, {{"offsets", &offsets}, {"sizes", &sizes}});
    auto at = objects_.size_of(offsets), extent = objects_.size_of(sizes);
    if (!at || !extent) fail(key, "a chunk without offsets or sizes");
    return {std::move(*at), std::move(*extent)};
  }

  void read_paths(const PickleValue& paths) {
    if (!paths.is(PickleKind::dict)) fail("planner_data", "expected a dict");
    const auto items = paths.items();
    for (size_t i = 0; i < items.size(); i += 2) {
      if (!items[i].is(PickleKind::text)) fail("planner_data", "a key that is no text");
      const std::string& key = items[i].text();
      std::vector<PathPart>* path = path_to(key);
      // Older versions list objects of other ranks there that rank 0 alone saved.
      if (path == nullptr) continue;
      if (!path->empty()) fail(key, "planner_data: duplicate key");
      *path = path_of(key, items[i + 1]);
    }
    for (const DcpTensor& tensor : out_.tensors) {
      if (tensor.path.empty()) fail(tensor.key, "no planner_data");
    }
    for (const DcpBytes& object : out_.objects) {
      if (object.path.empty()) fail(object.key, "no planner_data");
    }
  }

  std::vector<PathPart>* path_to(const std::string& key) {
    if (auto it = std::ranges::lower_bound(out_.tensors, key, {}, &DcpTensor::key);
        it != out_.tensors.end() && it->key == key) {
      return &it->path;
    }
    auto it = std::ranges::lower_bound(out_.objects, key, {}, &DcpBytes::key);
    return it != out_.objects.end() && it->key == key ? &it->path : nullptr;
  }

  // The parts joined by dots are the key, so a path costs no more than its key.
  std::vector<PathPart> path_of(const std::string& key, const PickleValue& value) const {
    std::vector<PathPart> path;
    std::string_view rest = key;
    bool matches = value.is(PickleKind::tuple) && !value.items().empty();
    for (size_t i = 0; matches && i < value.items().size(); ++i) {
      const PickleValue& part = value.items()[i];
      if (i > 0) {
        matches = rest.starts_with('.');
        if (matches) rest.remove_prefix(1);
      }
      std::string name;
      if (matches && part.is(PickleKind::integer)) {
        name = std::to_string(part.integer());
        path.emplace_back(part.integer());
      } else if (matches && part.is(PickleKind::text) && rest.starts_with(part.text())) {
        name = part.text();
        path.emplace_back(name);
      } else {
        matches = false;
      }
      matches = matches && rest.starts_with(name);
      if (matches) rest.remove_prefix(name.size());
    }
    if (!matches || !rest.empty()) fail(key, "planner_data: a path that does not spell the key");
    return path;
  }

  const InputFile& file_;
  DcpObjects objects_;
  std::vector<Storage> storage_;  // by index()
  size_t num_chunks_ = 0;
  DcpMetadata out_;
};

}  // namespace

DcpMetadata read_dcp_metadata(const InputFile& file) { return MetadataReader(file).read(); }

DcpMetadata read_dcp_metadata(const std::filesystem::path& path) {
  return read_dcp_metadata(InputFile(path));
}

}  // namespace dsv3
