#include "dsv3/convert/model_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <unordered_set>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/problems.h"

namespace dsv3 {
namespace {

constexpr size_t kPiece = 1 << 17;  // elements

// N of "model.layers.N.…".
std::optional<int64_t> layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  int64_t layer = 0;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

void check_tensor(const TensorStore& store, const StoredTensor& tensor, const std::vector<int64_t>& shape,
                  Problems& problems) {
  if (tensor.shape != shape) {
    problems.add(tensor.name, fmt::format("has shape [{}], expected [{}]", fmt::join(tensor.shape, ", "),
                                          fmt::join(shape, ", ")));
  } else if (const auto problem = store.problem_with(tensor)) {
    problems.add(problem->tensor, problem->what);
  }
}

std::vector<SharedCopy> copies_of(const ModelConfig& config) {
  std::vector<SharedCopy> copies = mtp_shared_copies(config);
  if (config.tie_word_embeddings) copies.push_back({"lm_head.weight", "model.embed_tokens.weight"});
  return copies;
}

void require_f16(const std::string& file, const StoredTensor& tensor, int64_t begin,
                 std::span<const float> values) {
  constexpr float kInfinite = 65520;  // the first that is rounded to infinity
  const auto beyond = std::ranges::find_if(
      values, [](float value) { return std::isfinite(value) && std::abs(value) >= kInfinite; });
  if (beyond != values.end())
    throw InputError(
        file, tensor.name,
        fmt::format("element {} is {}, F16 ends at 65504", begin + (beyond - values.begin()), *beyond),
        "keep it in BF16 or F32");
}

}  // namespace

std::string model_prefix(const TensorStore& store) {
  constexpr std::string_view kFirst = "model.embed_tokens.weight";
  std::vector<std::string> found;
  for (const auto& [name, tensor] : store.tensors()) {
    const size_t length = name.size() - std::min(name.size(), kFirst.size());
    const bool whole_part = length == 0 || name[length - 1] == '.';
    if (name.ends_with(kFirst) && whole_part) found.push_back(name.substr(0, length));
  }
  if (found.empty()) return "";
  if (found.size() == 1) return found.front();
  for (const char* usual : {"", "model."})
    if (std::ranges::find(found, usual) != found.end()) return usual;
  throw InputError(store.file(), found[0] + std::string(kFirst),
                   fmt::format("and {}{} are of two models", printable(found[1]), kFirst),
                   "save one of them alone, or under the key 'model'");
}

ModelWeights::ModelWeights(const std::filesystem::path& folder, const ModelConfig& config,
                           bool compare_copies)
    : ModelWeights(open_store(folder), config, !is_dcp_folder(folder), compare_copies) {}

ModelWeights::ModelWeights(std::unique_ptr<TensorStore> store, const ModelConfig& config, bool only_model,
                           bool compare_copies)
    : store_(std::move(store)), prefix_(model_prefix(*store_)), only_model_(only_model) {
  const ParamTable table = param_table(config);
  for (const ParamSpec& spec : table.params) sources_.emplace(spec.name, find_sources(spec));
  // MTP depths none of whose tensors is there, as long as no later depth is: those would stand on nothing.
  const int depths = table.num_units - 1 - table.head_unit();
  int last_present = 0;
  for (const ParamSpec& spec : table.params) {
    const auto present = [](const Source& source) { return source.tensor != nullptr; };
    if (std::ranges::any_of(sources_of(spec), present))
      last_present = std::max(last_present, spec.unit - table.head_unit());
  }
  for (int depth = last_present + 1; depth <= depths; ++depth) missing_mtp_.push_back(depth);
  check_names(table, config);
  if (compare_copies) check_copies(config);
}

const StoredTensor* ModelWeights::find(std::string_view name) const {
  return store_->find(prefix_ + std::string(name));
}

std::vector<ModelWeights::Source> ModelWeights::find_sources(const ParamSpec& spec) const {
  const auto is_there = [&](const HfTensor& hf) { return find(hf.name) != nullptr; };
  const StoredTensor* whole = find(spec.name);
  if (whole != nullptr && (spec.hf.size() == 1 || std::ranges::none_of(spec.hf, is_there)))
    return {{spec.name, whole, spec.shape, 0, spec.numel()}};
  std::vector<Source> sources;
  for (const HfTensor& hf : spec.hf)
    sources.push_back(
        {hf.name, find(hf.name), hf.shape, hf.offset, hf.offset + checked_numel(hf.shape).value()});
  std::ranges::sort(sources, {}, &Source::begin);
  return sources;
}

void ModelWeights::check_names(const ParamTable& table, const ModelConfig& config) const {
  const int last_unit = table.num_units - 1 - static_cast<int>(missing_mtp_.size());
  Problems problems(store_->file());
  std::unordered_set<std::string> known;
  for (const ParamSpec& spec : table.params) {
    for (const Source& source : sources_of(spec)) {
      known.insert(source.name);
      if (source.tensor != nullptr) {
        check_tensor(*store_, *source.tensor, source.shape, problems);
      } else if (spec.unit <= last_unit) {
        problems.add(source.name, "is missing");
      }
    }
  }
  for (const SharedCopy& copy : copies_of(config)) {
    known.insert(copy.name);
    const StoredTensor* tensor = find(copy.name);
    const ParamSpec* original = table.find(copy.of);
    if (tensor && original) check_tensor(*store_, *tensor, original->shape, problems);
  }
  for (const auto& [key, tensor] : store_->tensors()) {
    if (!key.starts_with(prefix_)) continue;
    const std::string name = key.substr(prefix_.size());
    const bool of_the_model = only_model_ || name.starts_with("model.") || name.starts_with("lm_head.");
    if (of_the_model && !known.contains(name) && !is_ignored(name, config))
      problems.add(key, "is unexpected");
  }
  problems.throw_if_any("the weights must fit config.json");
}

bool ModelWeights::is_ignored(std::string_view name, const ModelConfig& config) const {
  if (name.ends_with("rotary_emb.inv_freq") || store_->is_companion(name)) return true;
  // An MTP layer that the config does not ask for; an ordinary layer too many is an error.
  const auto layer = layer_of(name);
  return layer && *layer >= config.num_hidden_layers + config.num_nextn_predict_layers &&
         find(fmt::format("model.layers.{}.eh_proj.weight", *layer)) != nullptr;
}

void ModelWeights::check_copies(const ModelConfig& config) const {
  for (const SharedCopy& copy : copies_of(config)) {
    const StoredTensor* tensor = find(copy.name);
    const StoredTensor* original = find(copy.of);
    if (tensor && original && !is_equal(*tensor, *original)) {
      throw InputError(tensor->file, copy.name,
                       fmt::format("differs from {}, which it must repeat", copy.of));
    }
  }
}

// Byte by byte; by value where the dtypes differ.
bool ModelWeights::is_equal(const StoredTensor& a, const StoredTensor& b) const {
  const bool same_dtype = a.dtype == b.dtype && a.dtype != DType::f8_e4m3;
  const auto compare = [&](auto& left, auto& right, size_t width, const auto& read) {
    const int64_t numel = a.numel(), piece = static_cast<int64_t>(kPiece);
    for (int64_t begin = 0; begin < numel; begin += piece) {
      const size_t count = static_cast<size_t>(std::min(numel - begin, piece)) * width;
      read(a, begin, std::span(left).first(count));
      read(b, begin, std::span(right).first(count));
      if (std::memcmp(left.data(), right.data(), count * sizeof(left[0])) != 0) return false;
    }
    return true;
  };
  if (same_dtype) {
    const auto width = static_cast<size_t>(dtype_size(a.dtype));
    std::vector<std::byte> left(kPiece * width), right(left.size());
    return compare(left, right, width,
                   [&](const StoredTensor& tensor, int64_t begin, std::span<std::byte> out) {
                     store_->read_bytes(tensor, begin, out);
                   });
  }
  std::vector<double> left(kPiece), right(kPiece);
  return compare(left, right, 1, [&](const StoredTensor& tensor, int64_t begin, std::span<double> out) {
    store_->read(tensor, begin, out);
  });
}

DType ModelWeights::common_dtype(const ParamSpec& spec, bool fp8_as_bf16) const {
  std::optional<DType> found;
  for (const Source& source : sources_of(spec)) {
    if (source.tensor == nullptr) continue;
    const bool becomes_bf16 = fp8_as_bf16 && source.tensor->dtype == DType::f8_e4m3;
    const DType own = becomes_bf16 ? DType::bf16 : source.tensor->dtype;
    found = !found || *found == own ? own : DType::f32;
  }
  return found.value_or(DType::bf16);
}

bool ModelWeights::has(const ParamSpec& spec) const {
  return std::ranges::all_of(sources_of(spec), [](const Source& source) { return source.tensor != nullptr; });
}

// fn(source, first element of its tensor, offset into what was asked for, elements)
template <class Fn>
void ModelWeights::for_each_source(const ParamSpec& spec, int64_t begin, int64_t end, Fn fn) const {
  if (begin < 0 || end > spec.numel()) {
    throw std::logic_error(fmt::format("{}: elements [{}, {}) of {}", spec.name, begin, end, spec.numel()));
  }
  const std::vector<Source>& sources = sources_of(spec);
  for (auto source = std::ranges::upper_bound(sources, begin, {}, &Source::end); source != sources.end();
       ++source) {
    const int64_t from = std::max(begin, source->begin), to = std::min(end, source->end);
    if (from >= to) break;
    if (source->tensor == nullptr) throw InputError(store_->file(), source->name, "is missing");
    fn(*source->tensor, from - source->begin, static_cast<size_t>(from - begin),
       static_cast<size_t>(to - from));
  }
}

void ModelWeights::read(const ParamSpec& spec, int64_t begin, std::span<float> out) const {
  for_each_source(spec, begin, begin + static_cast<int64_t>(out.size()),
                  [&](const StoredTensor& tensor, int64_t first, size_t offset, size_t count) {
                    store_->read(tensor, first, out.subspan(offset, count));
                  });
}

void ModelWeights::read(const ParamSpec& spec, int64_t begin, std::span<double> out) const {
  for_each_source(spec, begin, begin + static_cast<int64_t>(out.size()),
                  [&](const StoredTensor& tensor, int64_t first, size_t offset, size_t count) {
                    store_->read(tensor, first, out.subspan(offset, count));
                  });
}

void ModelWeights::read_bytes(const ParamSpec& spec, int64_t begin, DType dtype,
                              std::span<std::byte> out) const {
  const auto size = static_cast<size_t>(dtype_size(dtype));
  for_each_source(spec, begin, begin + static_cast<int64_t>(out.size() / size),
                  [&](const StoredTensor& tensor, int64_t first, size_t offset, size_t count) {
                    const auto bytes = out.subspan(offset * size, count * size);
                    if (tensor.dtype == dtype) return store_->read_bytes(tensor, first, bytes);
                    if (dtype == DType::f64) {
                      std::vector<double> values(count);
                      store_->read(tensor, first, values);
                      std::memcpy(bytes.data(), values.data(), bytes.size());
                      return;
                    }
                    std::vector<float> values(count);
                    store_->read(tensor, first, values);
                    if (dtype == DType::f16) require_f16(store_->file(), tensor, first, values);
                    encode(values, dtype, bytes);
                  });
}

bool ModelWeights::read_fp8(const ParamSpec& spec, int64_t begin, std::span<std::byte> codes,
                            std::span<float> scales) const {
  const auto holds = [&](const Source& source) {
    return source.tensor != nullptr && source.tensor->dtype == DType::f8_e4m3 && source.begin <= begin &&
           begin + static_cast<int64_t>(codes.size()) <= source.end;
  };
  const auto source = std::ranges::find_if(sources_of(spec), holds);
  if (source == sources_of(spec).end()) return false;
  const int64_t first = begin - source->begin, cols = source->shape[1];
  if (first % (kFp8Block * cols) != 0) return false;
  const StoredTensor& stored = *store_->find(fp8_scale_name(source->tensor->name));
  store_->read_bytes(*source->tensor, first, codes);
  store_->read_bytes(stored, first / cols / kFp8Block * stored.shape[1], std::as_writable_bytes(scales));
  return true;
}

}  // namespace dsv3
