#include "dsv3/formats/safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/base/text_pieces.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxDims = 64;

std::optional<DType> parse_dtype(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    if (name == dtype_name(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  return std::nullopt;
}

// Bytes of a tensor; nothing when its size in bits, zero dims left out, leaves int64.
std::optional<uint64_t> byte_size(const TensorInfo& tensor) {
  int64_t bits = 8 * dtype_size(tensor.dtype);
  bool empty = false;
  for (int64_t dim : tensor.shape) {
    empty |= dim == 0;
    auto next = checked_mul(bits, std::max<int64_t>(dim, 1));
    if (!next) return std::nullopt;
    bits = *next;
  }
  return empty ? 0 : static_cast<uint64_t>(bits / 8);
}

// {"__metadata__": {string: string}, NAME: {"dtype": …, "shape": […], "data_offsets": [begin, end]}, …}
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderParser(const std::string& file, uint64_t data_size) : file_(file), data_size_(data_size) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t) override {
    if (place_ == Place::file) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = in_metadata_ ? Place::metadata : Place::tensor;
    } else {
      fail("an object where none belongs");
    }
    return true;
  }

  bool key(std::string& name) override {
    if (place_ == Place::top) return begin_entry(name);
    field_ = name;
    if (place_ == Place::metadata) {
      if (header_.metadata.contains(name)) fail("duplicate key");
      return true;
    }
    const int bit = name == "dtype"          ? kDType
                    : name == "shape"        ? kShape
                    : name == "data_offsets" ? kOffsets
                                             : 0;
    if (bit == 0) fail("unknown key, expected dtype, shape or data_offsets");
    if (seen_ & bit) fail("duplicate key");
    seen_ |= bit;
    wanted_ = bit;
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(field_, std::move(value));
    } else if (place_ == Place::tensor && wanted_ == kDType) {
      const auto dtype = parse_dtype(value);
      if (!dtype) fail(fmt::format("dtype \"{}\" is not supported", printable(value, 32)));
      tensor_.dtype = *dtype;
    } else {
      fail("a string where none belongs");
    }
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::tensor || wanted_ == kDType) fail("an array where none belongs");
    place_ = Place::array;
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::array) fail("a number where none belongs");
    if (wanted_ == kShape) {
      if (value > std::numeric_limits<int64_t>::max())
        fail(fmt::format("dim {} is larger than int64", value));
      if (tensor_.shape.size() == kMaxDims) fail(fmt::format("more than {} dims", kMaxDims));
      tensor_.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (num_offsets_ == 2) fail("more than two offsets");
      (num_offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    }
    return true;
  }

  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) end_tensor();
    place_ = place_ == Place::top ? Place::file : Place::top;
    return true;
  }

  bool null() override { fail("null where none belongs"); }
  bool boolean(bool) override { fail("a boolean where none belongs"); }
  bool number_integer(int64_t value) override { fail(fmt::format("{} is negative", value)); }
  bool number_float(double, const std::string& text) override {
    fail(fmt::format("{} is no integer of 64 bits", printable(text, 32)));
  }
  bool binary(nlohmann::json::binary_t&) override { fail("binary data"); }
  bool parse_error(size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    throw json_error(file_, 8 + byte, error.what());
  }

 private:
  enum class Place { file, top, metadata, tensor, array };
  static constexpr int kDType = 1, kShape = 2, kOffsets = 4;

  [[noreturn]] void fail(std::string_view why) const {
    std::string where = in_metadata_ ? "__metadata__" : tensor_.name;
    if (!field_.empty()) where.append(".").append(field_);
    throw InputError(file_, where, why);
  }

  bool begin_entry(std::string& name) {
    in_metadata_ = name == "__metadata__";
    field_.clear();
    seen_ = wanted_ = num_offsets_ = 0;
    if (in_metadata_) {
      if (std::exchange(has_metadata_, true)) fail("duplicate key");
      return true;
    }
    tensor_ = {std::move(name), DType::f32, {}, 0, 0};
    if (!is_plain_name(tensor_.name)) fail("tensor name is empty or holds control characters");
    return true;
  }

  void end_tensor() {
    field_.clear();
    if (seen_ != (kDType | kShape | kOffsets)) fail("dtype, shape or data_offsets is missing");
    field_ = "data_offsets";
    const uint64_t begin = tensor_.begin, end = tensor_.end;
    if (num_offsets_ != 2) fail("two offsets expected");
    if (begin > end) fail(fmt::format("[{}, {}] ends before it begins", begin, end));
    if (end > data_size_) {
      fail(fmt::format("[{}, {}] ends after the data of {} bytes (is the file cut off?)", begin, end,
                       data_size_));
    }
    const auto bytes = byte_size(tensor_);
    if (!bytes) fail(fmt::format("shape [{}] overflows", fmt::join(tensor_.shape, ", ")));
    if (*bytes != end - begin) {
      fail(fmt::format("[{}, {}] holds {} bytes, {} of shape [{}] take {}", begin, end, end - begin,
                       dtype_name(tensor_.dtype), fmt::join(tensor_.shape, ", "), *bytes));
    }
    if (begin % static_cast<uint64_t>(dtype_size(tensor_.dtype)) != 0) {
      fail(fmt::format("begins at {}, misaligned for {}", begin, dtype_name(tensor_.dtype)));
    }
    // More bytes than there are must overlap: said here, a million of such tensors is never kept.
    total_ += end - begin;
    if (total_ > data_size_) {
      const auto same = [&](const TensorInfo& other) { return other.name == tensor_.name; };
      fail(std::ranges::any_of(header_.tensors, same) ? "duplicate key" : "overlaps another tensor");
    }
    header_.tensors.push_back(std::move(tensor_));
  }

  const std::string& file_;
  uint64_t data_size_;
  SafetensorsHeader header_;
  Place place_ = Place::file;
  bool in_metadata_ = false, has_metadata_ = false;
  int seen_ = 0, wanted_ = 0, num_offsets_ = 0;  // keys of the current tensor; the key whose value comes
  std::string field_;
  TensorInfo tensor_;
  uint64_t total_ = 0;
};

}  // namespace

bool is_plain_name(std::string_view name) {
  for (size_t i = 0; i < name.size(); ++i) {
    const unsigned char c = name[i];
    if (c < 0x20 || c == 0x7f) return false;
    // U+0080 to U+009F: the control characters of eight bits, some of which start terminal commands.
    if (c == 0xc2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xa0) return false;
  }
  return !name.empty();
}

SafetensorsHeader parse_safetensors_header(const InputFile& file, uint64_t length, uint64_t data_size) {
  TextPieces text(file, 8, 8 + length);
  const TextIterator first(text), last;
  if (first == last || *first != '{') throw InputError(file.path(), "byte 8", "the header is no JSON object");
  HeaderParser parser(file.path(), data_size);
  nlohmann::json::sax_parse(first, last, &parser);
  return parser.take();
}

}  // namespace dsv3
