#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>

#include "dsv3/base/checked.h"
#include "dsv3/formats/torch_dtype.h"
#include "dsv3/formats/torch_item.h"
#include "dsv3/formats/zip.h"
#include "dsv3/formats/zip_format.h"

namespace dsv3 {
namespace {

using namespace zip;

constexpr uint64_t kAlignment = 64;
constexpr std::string_view kFolder = "archive/";

template <class T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

#pragma pack(push, 1)
struct Sizes64 {
  ExtraHeader header{kExtraZip64, 16};
  uint64_t size = 0, stored_size = 0;
};
#pragma pack(pop)

// An archive written front to back: its records, then the directory.
class ZipWriter {
 public:
  void add(std::string_view name, std::string_view data) {
    header(name, data.size(), crc32_of(std::as_bytes(std::span(data))));
    out_ += data;
  }

  // The last record: `size` bytes of it stand between head() and tail().
  void add_outside(std::string_view name, uint64_t size, uint32_t crc) {
    header(name, size, crc);
    outside_ = size;
  }

  TorchItem finish() {
    const uint64_t directory = out_.size() + outside_;
    TorchItem item{std::move(out_), std::move(directory_)};
    const uint64_t directory_size = item.tail.size();
    // Always with ZIP64 records, as torch.save does: the sizes do not depend on the data's.
    append(item.tail, End64{.entries_here = entries_,
                            .entries = entries_,
                            .directory_size = directory_size,
                            .directory_offset = directory});
    append(item.tail, Locator64{.end64_offset = directory + directory_size});
    append(item.tail, End{.entries_here = entries_,
                          .entries = entries_,
                          .directory_size = static_cast<uint32_t>(directory_size),
                          .directory_offset = narrow(directory)});
    return item;
  }

 private:
  static uint32_t narrow(uint64_t value) { return value < kSee64 ? static_cast<uint32_t>(value) : kSee64; }

  void header(std::string_view record, uint64_t size, uint32_t crc) {
    const std::string name = std::string(kFolder).append(record);
    const bool wide = size >= kSee64;
    std::string extra;
    if (wide) append(extra, Sizes64{.size = size, .stored_size = size});
    const std::string central_extra = extra;
    // Padding, itself a field with a header, up to the alignment of the data.
    const uint64_t data =
        out_.size() + sizeof(LocalHeader) + name.size() + extra.size() + sizeof(ExtraHeader);
    const auto padding = static_cast<uint16_t>((kAlignment - data % kAlignment) % kAlignment);
    append(extra, ExtraHeader{kExtraPadding, padding});
    extra.append(padding, '\0');

    const uint16_t version = wide ? 45 : 20;
    append(directory_, CentralHeader{.made_by = version,
                                     .version = version,
                                     .flags = kFlagUtf8,
                                     .crc = crc,
                                     .stored_size = narrow(size),
                                     .size = narrow(size),
                                     .name_size = static_cast<uint16_t>(name.size()),
                                     .extra_size = static_cast<uint16_t>(central_extra.size()),
                                     // All headers stand before the data that may be large.
                                     .local_offset = static_cast<uint32_t>(out_.size())});
    directory_ += name + central_extra;
    append(out_, LocalHeader{.version = version,
                             .flags = kFlagUtf8,
                             .crc = crc,
                             .stored_size = narrow(size),
                             .size = narrow(size),
                             .name_size = static_cast<uint16_t>(name.size()),
                             .extra_size = static_cast<uint16_t>(extra.size())});
    out_ += name + extra;
    ++entries_;
  }

  std::string out_, directory_;
  uint64_t outside_ = 0;
  uint16_t entries_ = 0;
};

// What torch.save writes beside the pickle and the data, as far as torch.load reads it.
void add_fixed_records(ZipWriter& zip) {
  zip.add("byteorder", "little");
  zip.add("version", "3\n");
}

uint64_t data_bytes(DType dtype, std::span<const int64_t> shape) {
  const auto numel = checked_numel(shape);
  const auto bytes = numel ? checked_mul(*numel, dtype_size(dtype)) : std::nullopt;
  if (!bytes) throw std::logic_error(fmt::format("impossible shape [{}]", fmt::join(shape, ", ")));
  return static_cast<uint64_t>(*bytes);
}

PickleValue integers(std::span<const int64_t> values) {
  std::vector<PickleValue> items;
  for (const int64_t value : values) items.push_back(PickleValue::of_int(value));
  return PickleValue::of_tuple(std::move(items));
}

std::vector<int64_t> row_major_strides(std::span<const int64_t> shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  // As torch counts: a dim of 0 does not make the strides before it 0.
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(shape[i], 1);
  return strides;
}

}  // namespace

TorchItem make_torch_tensor(DType dtype, std::span<const int64_t> shape, uint32_t crc) {
  const uint64_t bytes = data_bytes(dtype, shape);
  const TorchDType& type = torch_dtype(dtype);
  const bool untyped = type.storage == "torch.storage UntypedStorage";
  const auto storage_numel = static_cast<int64_t>(untyped ? bytes : bytes / dtype_size(dtype));
  std::vector<PickleValue> args{
      PickleValue::of_persistent(PickleValue::of_tuple(
          {PickleValue::of_text("storage"), PickleValue::of_global(type.storage), PickleValue::of_text("0"),
           PickleValue::of_text("cpu"), PickleValue::of_int(storage_numel)})),
      PickleValue::of_int(0),
      integers(shape),
      integers(row_major_strides(shape)),
      PickleValue::of_bool(false),
      PickleValue::of_call("collections OrderedDict", {})};
  if (untyped) args.push_back(PickleValue::of_global(type.global));
  ZipWriter zip;
  zip.add("data.pkl", write_pickle(PickleValue::of_call(
                          untyped ? "torch._utils _rebuild_tensor_v3" : "torch._utils _rebuild_tensor_v2",
                          std::move(args))));
  add_fixed_records(zip);
  zip.add_outside("data/0", bytes, crc);
  return zip.finish();
}

TorchItem make_torch_tensor(DType dtype, std::span<const int64_t> shape, std::span<const std::byte> data) {
  if (data.size() != data_bytes(dtype, shape)) {
    throw std::logic_error(
        fmt::format("{} bytes for a tensor of shape [{}]", data.size(), fmt::join(shape, ", ")));
  }
  return make_torch_tensor(dtype, shape, crc32_of(data));
}

uint64_t torch_tensor_bytes(DType dtype, std::span<const int64_t> shape) {
  const TorchItem item = make_torch_tensor(dtype, shape, 0u);
  return item.head.size() + item.tail.size();
}

std::string make_torch_object(const PickleValue& value) {
  ZipWriter zip;
  zip.add("data.pkl", write_pickle(value));
  add_fixed_records(zip);
  TorchItem item = zip.finish();
  return item.head + item.tail;
}

}  // namespace dsv3
