#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/formats/torch_dtype.h"
#include "dsv3/formats/torch_item.h"
#include "dsv3/formats/zip.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxDims = 64;
constexpr uint64_t kMaxSmall = 1u << 20;   // data.pkl of a tensor has 160 bytes
constexpr uint64_t kMaxPickle = 8u << 20;  // an object holds lists of names at most
constexpr std::string_view kRebuild2 = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view kRebuild3 = "torch._utils _rebuild_tensor_v3";

// An open archive: its records stand in one folder of any name.
class TorchArchive {
 public:
  TorchArchive(const InputFile& file, uint64_t offset, uint64_t length, std::string_view name)
      : file_(file), name_(name), zip_(file, offset, length, name) {
    const auto& entries = zip_.entries();
    const size_t slash = entries.empty() ? std::string::npos : entries[0].name.find('/');
    if (slash == std::string::npos) fail("zip", "no archive of torch.save: its first record has no folder");
    folder_ = entries[0].name.substr(0, slash + 1);
    for (const ZipEntry& entry : entries) {
      if (!entry.name.starts_with(folder_)) fail(entry.name, fmt::format("is not in {}", folder_));
    }
    if (const ZipEntry* order = zip_.find(folder_ + "byteorder")) {
      if (const std::string text = zip_.read(*order, 16); text != "little") {
        fail("byteorder", fmt::format("\"{}\", expected \"little\"", printable(text)));
      }
    }
  }

  // data.pkl, its CRC checked.
  PickleValue pickle(const PickleRules& rules) const {
    const ZipEntry& entry = get("data.pkl");
    if (entry.size > kMaxPickle)
      fail(entry.name, fmt::format("{} bytes, at most {} expected", entry.size, kMaxPickle));
    zip_.check(entry);
    return parse_pickle(file_, entry.begin, entry.size, field("data.pkl"), rules);
  }

  // Checks the CRCs of all records but data/KEY; other data is refused.
  void check_others(std::string_view key = {}) const {
    const std::string data = folder_ + "data/", own = data + std::string(key);
    for (const ZipEntry& entry : zip_.entries()) {
      if (!key.empty() && entry.name == own) continue;
      if (entry.name.starts_with(data)) fail(entry.name, "is part of nothing");
      if (entry.size > kMaxSmall && entry.name != folder_ + "data.pkl") {
        fail(entry.name, fmt::format("{} bytes, at most {} expected", entry.size, kMaxSmall));
      }
      zip_.check(entry);
    }
  }

  const ZipEntry& get(std::string_view record) const {
    const ZipEntry* entry = zip_.find(folder_ + std::string(record));
    if (entry == nullptr) fail(record, "no such record in the archive");
    return *entry;
  }

  std::string field(std::string_view record) const {
    return fmt::format("{}{}{}", name_, name_.empty() ? "" : " ", record);
  }
  [[noreturn]] void fail(std::string_view record, std::string_view why, std::string_view hint = {}) const {
    throw InputError(file_.path(), field(record), why, hint);
  }

 private:
  const InputFile& file_;
  std::string_view name_;
  StoredZip zip_;
  std::string folder_;
};

// A tuple of sizes, all zero or more.
std::optional<std::vector<int64_t>> sizes_of(const PickleValue& value) {
  if (!value.is(PickleKind::tuple) || value.items().size() > kMaxDims) return std::nullopt;
  std::vector<int64_t> out;
  for (const PickleValue& item : value.items()) {
    if (!item.is(PickleKind::integer) || item.integer() < 0) return std::nullopt;
    out.push_back(item.integer());
  }
  return out;
}

// Whether strides are those of row-major order; those of dims of size 1 say nothing, nor do those of nothing.
bool is_row_major(std::span<const int64_t> shape, std::span<const int64_t> strides) {
  if (std::ranges::count(shape, 0) > 0) return true;
  int64_t stride = 1;  // fits: the numel of the shape does
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] == 1) continue;
    if (strides[i] != stride) return false;
    stride *= shape[i];
  }
  return true;
}

// Whether strides are those of a row-major [C, R] seen as [R, C].
bool is_transposed(std::span<const int64_t> shape, std::span<const int64_t> strides) {
  return shape.size() == 2 && strides[0] == 1 && strides[1] == shape[0];
}

class TensorReader {
 public:
  TensorReader(const InputFile& file, uint64_t offset, uint64_t length, std::string_view name)
      : archive_(file, offset, length, name) {}

  TorchTensor read() {
    std::vector<std::string_view> globals{kRebuild2, kRebuild3, "collections OrderedDict"};
    for (const TorchDType& type : torch_dtypes()) {
      globals.push_back(type.global);
      globals.push_back(type.storage);
    }
    const PickleValue value = archive_.pickle({.globals = globals, .persistent_ids = true});
    const bool v3 = value.is_call(kRebuild3);
    if (!v3 && !value.is_call(kRebuild2)) fail("is no tensor");
    if (value.state() != nullptr) fail("a tensor with attributes");
    // storage, offset, size, stride, requires_grad, backward_hooks[, dtype][, metadata]
    const auto args = value.args();
    const size_t count = v3 ? 7 : 6;
    if (args.size() < count || args.size() > count + 1) {
      fail(fmt::format("a tensor of {} arguments, expected {}", args.size(), count));
    }
    if (!args[4].is(PickleKind::boolean) || !is_empty(args[5]) ||
        (args.size() > count && !args[count].is(PickleKind::none) && !is_empty(args[count]))) {
      fail("a tensor with hooks or metadata");
    }
    return describe(args, v3 ? &args[6] : nullptr);
  }

 private:
  [[noreturn]] void fail(std::string_view why, std::string_view hint = {}) const {
    archive_.fail("data.pkl", why, hint);
  }
  static bool is_empty(const PickleValue& value) {
    return value.is(PickleKind::dict) && value.items().empty();
  }

  struct Storage {
    std::string_view type;
    const ZipEntry& record;
    int64_t numel;
  };
  // ("storage", class, key, device, numel)
  Storage storage(const PickleValue& value) const {
    const PickleValue* id = value.is(PickleKind::persistent) ? &value.items()[0] : nullptr;
    if (id == nullptr || !id->is(PickleKind::tuple) || id->items().size() != 5)
      fail("a tensor of no storage");
    const auto parts = id->items();
    if (!parts[0].is(PickleKind::text) || parts[0].text() != "storage" || !parts[1].is(PickleKind::global) ||
        !parts[2].is(PickleKind::text) || !parts[3].is(PickleKind::text) ||
        !parts[4].is(PickleKind::integer) || parts[4].integer() < 0 || parts[2].text().empty() ||
        parts[2].text().size() > 64) {
      fail("a tensor of no storage");
    }
    const std::string& key = parts[2].text();
    archive_.check_others(key);
    return {parts[1].text(), archive_.get("data/" + key), parts[4].integer()};
  }

  // Version 2 says the dtype by the class of the storage, version 3 by itself, of an untyped storage.
  static std::optional<DType> dtype_of(const Storage& from, const PickleValue* dtype_arg) {
    if (dtype_arg != nullptr) {
      const bool usual = dtype_arg->is(PickleKind::global) && from.type == kUntyped;
      return usual ? dtype_of_torch(dtype_arg->text()) : std::nullopt;
    }
    for (const TorchDType& type : torch_dtypes()) {
      if (type.storage == from.type && from.type != kUntyped) return type.dtype;
    }
    return std::nullopt;
  }

  TorchTensor describe(std::span<const PickleValue> args, const PickleValue* dtype_arg) const {
    const Storage from = storage(args[0]);
    const std::optional<DType> dtype = dtype_of(from, dtype_arg);
    if (!dtype) {
      const bool named = dtype_arg != nullptr && dtype_arg->is(PickleKind::global);
      fail(fmt::format("a tensor of {}{} is not supported", from.type,
                       named ? " and " + dtype_arg->text() : ""));
    }
    const int64_t element = dtype_size(*dtype);
    // An UntypedStorage counts bytes.
    const auto bytes = checked_mul(from.numel, dtype_arg == nullptr ? element : 1);
    if (!bytes || static_cast<uint64_t>(*bytes) != from.record.size) {
      fail(fmt::format("a storage of {} elements, its record has {} bytes", from.numel, from.record.size));
    }
    auto shape = sizes_of(args[2]);
    const auto strides = sizes_of(args[3]);
    const auto numel = shape ? checked_numel(*shape) : std::nullopt;
    if (!numel || !strides || strides->size() != shape->size() || !args[1].is(PickleKind::integer)) {
      fail("a shape, strides or offset that are none");
    }
    const bool transposed = !is_row_major(*shape, *strides) && is_transposed(*shape, *strides);
    if (!transposed && !is_row_major(*shape, *strides)) {
      fail(fmt::format("strides [{}] of shape [{}] are not contiguous", fmt::join(*strides, ", "),
                       fmt::join(*shape, ", ")),
           "save tensor.contiguous()");
    }
    const auto size = checked_mul(*numel, element), begin = checked_mul(args[1].integer(), element);
    if (!size || !begin || *begin < 0 || *begin > *bytes || *size > *bytes - *begin) {
      fail(fmt::format("shape [{}] at element {} lies outside of the storage of {} bytes",
                       fmt::join(*shape, ", "), args[1].integer(), *bytes));
    }
    TorchTensor out;
    out.dtype = *dtype;
    out.transposed = transposed;
    out.shape = std::move(*shape);
    out.begin = from.record.begin + static_cast<uint64_t>(*begin);
    out.size = static_cast<uint64_t>(*size);
    out.storage_begin = from.record.begin;
    out.storage_size = from.record.size;
    out.crc = from.record.crc;
    return out;
  }

  static constexpr std::string_view kUntyped = "torch.storage UntypedStorage";
  TorchArchive archive_;
};

}  // namespace

TorchTensor read_torch_tensor(const InputFile& file, uint64_t offset, uint64_t length,
                              std::string_view name) {
  return TensorReader(file, offset, length, name).read();
}

void check_torch_tensor(const InputFile& file, const TorchTensor& tensor, std::string_view name) {
  const uint32_t crc = file_crc32(file, tensor.storage_begin, tensor.storage_size);
  if (crc != tensor.crc) {
    throw InputError(file.path(), name,
                     fmt::format("CRC 0x{:08x} of its bytes, expected 0x{:08x}", crc, tensor.crc),
                     "the file is damaged");
  }
}

PickleValue read_torch_object(const InputFile& file, uint64_t offset, uint64_t length,
                              std::string_view name) {
  const TorchArchive archive(file, offset, length, name);
  static constexpr std::string_view kGlobals[] = {"collections OrderedDict", "_codecs encode"};
  PickleValue value = archive.pickle({.globals = kGlobals});
  archive.check_others();
  return value;
}

}  // namespace dsv3
