#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_set>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/hf_folder.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxListed = 20;
constexpr size_t kPiece = 1 << 17;  // elements

// Everything that does not fit, reported at once.
class Problems {
 public:
  explicit Problems(const std::string& file) : file_(file) {}
  void add(std::string_view tensor, std::string_view what) {
    if (count_++ == 0) {
      first_ = tensor;
      text_ = what;
    } else if (count_ <= kMaxListed) {
      text_ += fmt::format("; {} {}", printable(tensor), what);
    }
  }
  void throw_if_any() const {
    if (count_ == 0) return;
    const std::string rest = count_ > kMaxListed ? fmt::format("; and {} more", count_ - kMaxListed) : "";
    throw InputError(file_, first_, text_ + rest, "the weights must fit config.json");
  }

 private:
  const std::string& file_;
  size_t count_ = 0;
  std::string first_, text_;
};

void check_tensor(const HfWeights& weights, const HfWeights::Tensor& tensor,
                  const std::vector<int64_t>& shape, Problems& problems) {
  const TensorInfo& info = *tensor.info;
  if (info.shape != shape) {
    problems.add(info.name, fmt::format("has shape [{}], expected [{}]", fmt::join(info.shape, ", "),
                                        fmt::join(shape, ", ")));
  } else if (const auto problem = weights.problem_with(tensor)) {
    problems.add(problem->tensor, problem->what);
  }
}

// N of "model.layers.N.…".
std::optional<int64_t> layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  int64_t layer = 0;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

bool is_ignored(const HfWeights& weights, std::string_view name, const ModelConfig& config) {
  if (name.ends_with("rotary_emb.inv_freq")) return true;
  // An MTP layer that the config does not ask for; an ordinary layer too many is an error.
  const auto layer = layer_of(name);
  return layer && *layer >= config.num_hidden_layers + config.num_nextn_predict_layers &&
         weights.find(fmt::format("model.layers.{}.eh_proj.weight", *layer)) != nullptr;
}

// By value, so that a repeat of another dtype may equal the original.
bool is_equal(const HfWeights& weights, const HfWeights::Tensor& a, const HfWeights::Tensor& b) {
  std::vector<double> left(kPiece), right(kPiece);
  const int64_t numel = a.info->numel();
  for (int64_t begin = 0; begin < numel; begin += static_cast<int64_t>(kPiece)) {
    const auto count = static_cast<size_t>(std::min<int64_t>(numel - begin, kPiece));
    weights.read(a, begin, std::span(left).first(count));
    weights.read(b, begin, std::span(right).first(count));
    if (std::memcmp(left.data(), right.data(), count * sizeof(double)) != 0) return false;
  }
  return true;
}

// MTP depths none of whose tensors is there, as long as no later depth is: those would stand on nothing.
std::vector<int64_t> find_missing_mtp(const HfWeights& weights, const ParamTable& table) {
  const int depths = table.num_units - 1 - table.head_unit();
  int last_present = 0;
  for (const ParamSpec& spec : table.params) {
    const auto present = [&](const HfTensor& hf) { return weights.find(hf.name) != nullptr; };
    if (std::ranges::any_of(spec.hf, present))
      last_present = std::max(last_present, spec.unit - table.head_unit());
  }
  std::vector<int64_t> missing;
  for (int depth = last_present + 1; depth <= depths; ++depth) missing.push_back(depth);
  return missing;
}

template <class T>
void read_param(const HfWeights& weights, const ParamSpec& spec, int64_t begin, std::span<T> out) {
  const int64_t end = begin + static_cast<int64_t>(out.size());
  if (begin < 0 || end > spec.numel()) {
    throw std::logic_error(fmt::format("{}: elements [{}, {}) of {}", spec.name, begin, end, spec.numel()));
  }
  for (const HfTensor& hf : spec.hf) {
    const int64_t numel = checked_numel(hf.shape).value();
    const int64_t from = std::max(begin, hf.offset), to = std::min(end, hf.offset + numel);
    if (from >= to) continue;
    const HfWeights::Tensor* tensor = weights.find(hf.name);
    if (tensor == nullptr) throw InputError(weights.file(), hf.name, "is missing");
    weights.read(*tensor, from - hf.offset,
                 out.subspan(static_cast<size_t>(from - begin), static_cast<size_t>(to - from)));
  }
}

}  // namespace

HfReader::HfReader(const std::filesystem::path& folder, const ModelConfig& config) : weights_(folder) {
  const ParamTable table = param_table(config);
  missing_mtp_ = find_missing_mtp(weights_, table);
  const int last_unit = table.num_units - 1 - static_cast<int>(missing_mtp_.size());

  Problems problems(weights_.file());
  std::unordered_set<std::string_view> known;
  for (const ParamSpec& spec : table.params) {
    for (const HfTensor& hf : spec.hf) {
      known.insert(hf.name);
      if (const auto* tensor = weights_.find(hf.name)) {
        check_tensor(weights_, *tensor, hf.shape, problems);
      } else if (spec.unit <= last_unit) {
        problems.add(hf.name, "is missing");
      }
    }
  }
  std::vector<SharedCopy> copies = mtp_shared_copies(config);
  if (config.tie_word_embeddings) copies.push_back({"lm_head.weight", "model.embed_tokens.weight"});
  for (const SharedCopy& copy : copies) {
    known.insert(copy.name);
    const auto* tensor = weights_.find(copy.name);
    const ParamSpec* original = table.find(copy.of);
    if (tensor && original) check_tensor(weights_, *tensor, original->shape, problems);
  }
  for (const auto& [name, tensor] : weights_.tensors()) {
    if (known.contains(name) || weights_.is_scale(name) || is_ignored(weights_, name, config)) continue;
    problems.add(name, "is unexpected");
  }
  problems.throw_if_any();

  for (const SharedCopy& copy : copies) {
    const auto* tensor = weights_.find(copy.name);
    const auto* original = weights_.find(copy.of);
    if (tensor && original && !is_equal(weights_, *tensor, *original)) {
      throw InputError(tensor->file->path(), copy.name,
                       fmt::format("differs from {}, which it must repeat", copy.of));
    }
  }
}

void HfReader::read(const ParamSpec& spec, int64_t begin, std::span<float> out) const {
  read_param(weights_, spec, begin, out);
}
void HfReader::read(const ParamSpec& spec, int64_t begin, std::span<double> out) const {
  read_param(weights_, spec, begin, out);
}

}  // namespace dsv3
