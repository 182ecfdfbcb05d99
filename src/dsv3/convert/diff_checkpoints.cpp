#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#include "dsv3/base/error.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements

// One of two tensors, wherever it comes from.
struct Side {
  DType dtype;
  std::vector<int64_t> shape;
  bool is_numbers;  // read() makes some of it
  std::function<void(int64_t begin, std::span<std::byte>)> read_bytes;
  std::function<void(int64_t begin, std::span<double>)> read;
};

// The values of FP8 are products in fp32, as whoever loads them makes them: in fp64 they would be none of
// what a conversion writes.
template <class Source, class Tensor>
void read_values(const Source& source, const Tensor& tensor, DType dtype, int64_t begin,
                 std::span<double> out) {
  if (dtype != DType::f8_e4m3) return source.read(tensor, begin, out);
  std::vector<float> values(out.size());
  source.read(tensor, begin, std::span(values));
  std::ranges::copy(values, out.begin());
}

Side side_of(const TensorStore& store, const StoredTensor& tensor) {
  return {
      tensor.dtype, tensor.shape, !store.problem_with(tensor),
      [&](int64_t begin, std::span<std::byte> out) { store.read_bytes(tensor, begin, out); },
      [&](int64_t begin, std::span<double> out) { read_values(store, tensor, tensor.dtype, begin, out); }};
}

Side side_of(const ModelWeights& weights, const ParamSpec& spec) {
  const DType dtype = weights.stored_dtype(spec);
  return {
      dtype, spec.shape, true,
      [&, dtype](int64_t begin, std::span<std::byte> out) { weights.read_bytes(spec, begin, dtype, out); },
      [&, dtype](int64_t begin, std::span<double> out) { read_values(weights, spec, dtype, begin, out); }};
}

// What differs in words; empty when nothing does.
class Comparison {
 public:
  std::string run(const Side& x, const Side& y) {
    if (x.shape != y.shape)
      return fmt::format("shape [{}] and [{}]", fmt::join(x.shape, ", "), fmt::join(y.shape, ", "));
    const bool is_numbers = x.is_numbers && y.is_numbers;
    std::string dtypes =
        x.dtype == y.dtype ? "" : fmt::format("dtype {} and {}", dtype_name(x.dtype), dtype_name(y.dtype));
    if (!is_numbers && !dtypes.empty()) return dtypes;
    const int64_t numel = StoredTensor{{}, x.dtype, x.shape, {}}.numel();
    for (int64_t begin = 0; begin < numel; begin += kPiece) {
      const int64_t count = std::min(kPiece, numel - begin);
      // The codes of FP8 mean nothing without their scales.
      if (dtypes.empty() && (are_bytes_equal(x, y, begin, count, !is_numbers) && x.dtype != DType::f8_e4m3))
        continue;
      if (is_numbers) compare_numbers(x, y, begin, count);
    }
    const std::string values = differing_ == 0 ? (dtypes.empty() ? "" : "equal values")
                                               : fmt::format("{} of {} elements differ, by up to {:.3g}",
                                                             differing_, numel, largest_);
    return dtypes.empty() ? values : dtypes + ", " + values;
  }

 private:
  bool are_bytes_equal(const Side& x, const Side& y, int64_t begin, int64_t count, bool count_them) {
    const auto size = static_cast<size_t>(dtype_size(x.dtype));
    std::vector<std::byte> left(static_cast<size_t>(count) * size), right(left.size());
    x.read_bytes(begin, left);
    y.read_bytes(begin, right);
    if (left == right) return true;
    for (size_t i = 0; count_them && i < left.size(); i += size)
      differing_ += std::memcmp(left.data() + i, right.data() + i, size) != 0 ? 1 : 0;
    return false;
  }

  void compare_numbers(const Side& x, const Side& y, int64_t begin, int64_t count) {
    std::vector<double> left(static_cast<size_t>(count)), right(left.size());
    x.read(begin, left);
    y.read(begin, right);
    for (size_t i = 0; i < left.size(); ++i) {
      if (std::bit_cast<uint64_t>(left[i]) == std::bit_cast<uint64_t>(right[i])) continue;
      ++differing_;
      largest_ = std::max(largest_, std::abs(left[i] - right[i]));
    }
  }

  int64_t differing_ = 0;
  double largest_ = 0;
};

// The parameters of one model in both checkpoints, whose formats name them in their own ways.
struct ModelPair {
  ModelConfig config;
  ParamTable table;
  ModelWeights left, right;
};

// Nothing when there is no config.json in either, or the weights of one do not fit it.
std::unique_ptr<ModelPair> as_one_model(const fs::path& left, const fs::path& right) {
  const fs::path& of_config = fs::exists(left / "config.json") ? left : right;
  if (!fs::exists(of_config / "config.json")) return nullptr;
  const ModelConfig config = ModelConfig::load(of_config);
  try {
    return std::unique_ptr<ModelPair>(new ModelPair{config, param_table(config),
                                                    ModelWeights(left, config, /*compare_copies=*/false),
                                                    ModelWeights(right, config, /*compare_copies=*/false)});
  } catch (const InputError&) {
    return nullptr;
  }
}

std::vector<Difference> diff_models(const ModelPair& pair, const fs::path& left, const fs::path& right) {
  pair.left.check_copies(pair.config);
  pair.right.check_copies(pair.config);
  std::vector<Difference> differences;
  for (const ParamSpec& spec : pair.table.params) {
    const bool in_left = pair.left.has(spec), in_right = pair.right.has(spec);
    std::string what;
    if (in_left && in_right) {
      what = Comparison().run(side_of(pair.left, spec), side_of(pair.right, spec));
    } else if (in_left || in_right) {
      what = "is missing in " + (in_left ? right : left).string();
    }
    if (!what.empty()) differences.push_back({spec.name, what});
  }
  return differences;
}

std::vector<Difference> diff_names(const Checkpoint& a, const Checkpoint& b) {
  std::vector<Difference> differences;
  for (const auto& [name, tensor] : a.store().tensors()) {
    const StoredTensor* other = b.store().find(name);
    const std::string what = other == nullptr
                                 ? "is missing in " + b.path().string()
                                 : Comparison().run(side_of(a.store(), tensor), side_of(b.store(), *other));
    if (!what.empty()) differences.push_back({name, what});
  }
  for (const auto& [name, tensor] : b.store().tensors())
    if (a.store().find(name) == nullptr) differences.push_back({name, "is missing in " + a.path().string()});
  return differences;
}

// Members of dsv3.state that say where a run stands.
constexpr const char* kPosition[] = {"step",         "tokens",  "cursor", "skipped",
                                     "bad_in_a_row", "updates", "data"};

// Plain values by value. budget: nodes that may still be looked at, since a tree may hold one at many places.
bool are_equal(const PickleValue& x, const PickleValue& y, int64_t& budget) {
  if (--budget < 0 || x.kind() != y.kind()) return false;
  switch (x.kind()) {
    case PickleKind::none:
      return true;
    case PickleKind::boolean:
      return x.boolean() == y.boolean();
    case PickleKind::integer:
      return x.integer() == y.integer();
    case PickleKind::real:
      return std::bit_cast<uint64_t>(x.real()) == std::bit_cast<uint64_t>(y.real());
    case PickleKind::text:
    case PickleKind::bytes:
      return x.text() == y.text();
    case PickleKind::tuple:
    case PickleKind::list:
    case PickleKind::dict:
      return std::ranges::equal(x.items(), y.items(), [&](const PickleValue& a, const PickleValue& b) {
        return are_equal(a, b, budget);
      });
    default:
      return false;
  }
}

// By their bytes, which another writer makes otherwise, then by their values, if they are plain.
bool are_objects_equal(const DcpFolder& a, const DcpFolder& b, const std::string& key) {
  if (a.is_same_archive(b, key)) return true;
  a.check_object(key), b.check_object(key);  // what is damaged is not another object
  try {
    int64_t budget = 1 << 24;
    return are_equal(*a.object(key), *b.object(key), budget);
  } catch (const InputError&) {  // of a class
    return false;
  }
}

void diff_objects(const Checkpoint& a, const Checkpoint& b, std::vector<Difference>& differences) {
  const auto* left = dynamic_cast<const DcpFolder*>(&a.store());
  const auto* right = dynamic_cast<const DcpFolder*>(&b.store());
  if (left == nullptr || right == nullptr) return;
  const auto there = a.state(), here = b.state();
  for (const std::string& key : left->object_keys()) {
    if (!right->has_object(key) || are_objects_equal(*left, *right, key)) continue;
    if (key != kStateKey || !there || !here) {
      differences.push_back({key, "is another object"});
      continue;
    }
    for (const char* member : kPosition) {
      const Json x = there->value(member, Json()), y = here->value(member, Json());
      if (x != y)
        differences.push_back(
            {key, fmt::format("{} {} and {}", member, printable(x.dump()), printable(y.dump()))});
    }
  }
}

}  // namespace

std::vector<Difference> diff_checkpoints(const Checkpoint& a, const Checkpoint& b) {
  const auto pair = a.format() != b.format() ? as_one_model(a.path(), b.path()) : nullptr;
  auto differences = pair ? diff_models(*pair, a.path(), b.path()) : diff_names(a, b);
  diff_objects(a, b, differences);
  std::ranges::stable_sort(differences, {}, &Difference::name);
  return differences;
}

}  // namespace dsv3
