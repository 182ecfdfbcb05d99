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
#include "dsv3/formats/pickle.h"
#include "dsv3/formats/safetensors_header.h"
#include "dsv3/formats/torch_dtype.h"

namespace dsv3 {
namespace {

using namespace dcp;

constexpr uint64_t kMaxFile = 2ull << 30;
constexpr size_t kMaxDims = 64;
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

// An entry of storage_data. key points into the pickle.
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
    const PickleValue root = parse_pickle(file_, 0, file_.size(), {}, {.globals = globals});
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

  // Takes the fields of a dataclass out of its state; each may be absent, others are refused.
  using Wanted = std::pair<std::string_view, const PickleValue**>;
  void fields(const PickleValue& object, std::string_view field, std::initializer_list<Wanted> wanted) const {
    const PickleValue* state = object.state();
    if (state == nullptr || !state->is(PickleKind::dict)) fail(field, "an object without its fields");
    const auto items = state->items();
    if (items.size() > 2 * wanted.size()) fail(field, "an object with too many fields");
    for (size_t i = 0; i < items.size(); i += 2) {
      const auto* it = items[i].is(PickleKind::text)
                           ? std::ranges::find(wanted, items[i].text(), &Wanted::first)
                           : wanted.end();
      if (it == wanted.end()) fail(field, "an object with an unknown field");
      if (*it->second != nullptr) fail(field, fmt::format("{} twice", it->first));
      *it->second = &items[i + 1];
    }
  }

  // torch.Size((…,)), or the tuple itself.
  std::optional<std::vector<int64_t>> size_of(const PickleValue* value) const {
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

  void read_storage(const PickleValue& storage) {
    const auto items = storage.items();
    storage_.reserve(items.size() / 2);
    for (size_t i = 0; i < items.size(); i += 2) {
      if (!items[i].is_instance(kIndex)) fail("storage_data", "a key that is no MetadataIndex");
      const PickleValue *key = nullptr, *at = nullptr, *hint = nullptr;
      fields(items[i], "storage_data", {{"fqn", &key}, {"offset", &at}, {"index", &hint}});
      if (key == nullptr || !key->is(PickleKind::text)) fail("storage_data", "a key without fqn");
      check_key(key->text());
      std::optional<std::vector<int64_t>> offsets;
      if (at != nullptr && !at->is(PickleKind::none)) {
        offsets = size_of(at);
        if (!offsets) fail(key->text(), "storage_data: an offset that is none");
      }
      storage_.push_back(storage_info(items[i + 1], key->text(), std::move(offsets)));
    }
    std::ranges::sort(storage_, {}, &Storage::place);
    for (size_t i = 1; i < storage_.size(); ++i) {
      const Storage &a = storage_[i - 1], &b = storage_[i];
      if (a.file == b.file && a.offset + a.length > b.offset) {
        fail(*b.key,
             fmt::format("bytes {} + {} of {} are also those of {}", b.offset, b.length, b.file, *a.key));
      }
    }
    std::ranges::sort(storage_, {}, &Storage::index);
    const auto twin = std::ranges::adjacent_find(storage_, {}, &Storage::index);
    if (twin != storage_.end()) fail(*twin->key, "storage_data: one chunk twice");
  }

  Storage storage_info(const PickleValue& value, const std::string& key,
                       std::optional<std::vector<int64_t>> at) const {
    if (!value.is_instance(kStorageInfo)) fail(key, "storage_data: no _StorageInfo");
    const PickleValue *name = nullptr, *offset = nullptr, *length = nullptr, *transforms = nullptr;
    fields(value, key,
           {{"relative_path", &name},
            {"offset", &offset},
            {"length", &length},
            {"transform_descriptors", &transforms}});
    if (transforms != nullptr && !transforms->is(PickleKind::none) &&
        !((transforms->is(PickleKind::list) || transforms->is(PickleKind::tuple)) &&
          transforms->items().empty())) {
      fail(key, "is stored transformed (transform_descriptors), which is not supported",
           "save the checkpoint without extensions");
    }
    if (name == nullptr || !name->is(PickleKind::text)) fail(key, "storage_data without relative_path");
    const std::string& file = name->text();
    if (file.size() > kMaxFileName || !is_plain_name(file) || file == "." || file == ".." ||
        file.find('/') != file.npos) {
      fail(key, fmt::format("relative_path \"{}\" is no plain file name", printable(file, 100)),
           "files stand beside .metadata");
    }
    const auto number = [](const PickleValue* v) {
      return v != nullptr && v->is(PickleKind::integer) ? v->integer() : int64_t{-1};
    };
    const int64_t begin = number(offset), size = number(length);
    if (begin < 0 || size <= 0 || !checked_add(begin, size)) {
      fail(key, fmt::format("storage_data: bytes {} + {} of {}", begin, size, file));
    }
    return {&key, std::move(at), file, static_cast<uint64_t>(begin), static_cast<uint64_t>(size)};
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
      if (value->is_instance(kTensor)) {
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
    const PickleValue *properties = nullptr, *size = nullptr, *chunks = nullptr;
    fields(value, key, {{"properties", &properties}, {"size", &size}, {"chunks", &chunks}});
    DcpTensor tensor;
    tensor.key = key;
    tensor.dtype = dtype_of(key, properties);
    auto shape = size_of(size);
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
    for (const PickleValue& chunk : chunks->items()) {
      const PickleValue *offsets = nullptr, *sizes = nullptr;
      if (!chunk.is_instance(kChunk)) fail(key, "a chunk that is none");
      fields(chunk, key, {{"offsets", &offsets}, {"sizes", &sizes}});
      auto at = size_of(offsets), extent = size_of(sizes);
      if (!at || !extent) fail(key, "a chunk without offsets or sizes");
      boxes.push_back({std::move(*at), std::move(*extent)});
    }
    if (const auto fault = find_box_fault(boxes, tensor.shape)) fail(key, *fault);
    for (Box& box : boxes) {
      std::optional<std::vector<int64_t>> at(box.offsets);
      const Storage& found = find_storage(key, at);
      tensor.chunks.push_back({std::move(box.offsets), std::move(box.sizes), std::string(found.file),
                               found.offset, found.length});
    }
    out_.tensors.push_back(std::move(tensor));
  }

  // (dtype, layout, requires_grad, memory format, pin_memory)
  DType dtype_of(const std::string& key, const PickleValue* value) const {
    if (value == nullptr || !(value->is_instance(kProperties) || value->is_instance(kOldProperties)) ||
        value->state() == nullptr || !value->state()->is(PickleKind::tuple) ||
        value->state()->items().size() != 5) {
      fail(key, "has no TensorProperties");
    }
    const auto state = value->state()->items();
    const PickleValue& layout = state[1];
    if (!layout.is_call(kGetLayout) || layout.args().size() != 1 || !layout.args()[0].is(PickleKind::text) ||
        layout.args()[0].text() != "torch.strided") {
      fail(key, "a layout that is not torch.strided is not supported");
    }
    if (!state[0].is(PickleKind::global)) fail(key, "a dtype that is none");
    const auto dtype = dtype_of_torch(state[0].text());
    if (!dtype) fail(key, fmt::format("dtype {} is not supported", state[0].text()));
    return *dtype;
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
