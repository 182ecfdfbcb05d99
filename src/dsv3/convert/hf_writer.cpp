#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"
#include "dsv3/convert/dtype.h"
#include "dsv3/convert/fp8.h"
#include "dsv3/convert/hf_folder.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 1 << 18;  // elements asked for at a time

// One tensor on disk and where its values come from. An FP8 one has its scales beside it, in the same file.
struct Item {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  const ParamSpec* spec;
  int64_t offset;  // elements into the parameter

  int64_t numel() const { return checked_numel(shape).value(); }
  bool is_fp8() const { return dtype == DType::f8_e4m3; }
  std::vector<int64_t> scale_shape() const { return fp8_scale_shape(shape[0], shape[1]); }
  uint64_t scale_bytes() const {
    return is_fp8() ? sizeof(float) * static_cast<uint64_t>(checked_numel(scale_shape()).value()) : 0;
  }
  uint64_t bytes() const { return static_cast<uint64_t>(numel() * dtype_size(dtype)) + scale_bytes(); }
};

std::vector<Item> list_items(const ParamTable& table, const ModelConfig& config, DType dtype) {
  std::vector<Item> items;
  const DType other = dtype == DType::f8_e4m3 ? DType::bf16 : dtype;
  for (const ParamSpec& spec : table.params) {
    const DType stored = spec.role == Role::router_bias ? DType::f32 : is_fp8_weight(spec) ? dtype : other;
    for (const HfTensor& hf : spec.hf) items.push_back({hf.name, stored, hf.shape, &spec, hf.offset});
  }
  for (const SharedCopy& copy : mtp_shared_copies(config)) {
    const ParamSpec* spec = table.find(copy.of);
    items.push_back({copy.name, other, spec->shape, spec, 0});
  }
  return items;
}

// Consecutive items until a shard is full; a tensor larger than a shard has one of its own.
std::vector<std::vector<Item>> cut_shards(std::vector<Item> items, uint64_t max_bytes) {
  std::vector<std::vector<Item>> shards;
  uint64_t size = 0;
  for (Item& item : items) {
    if (shards.empty() || size + item.bytes() > max_bytes) {
      shards.emplace_back();
      size = 0;
    }
    size += item.bytes();
    shards.back().push_back(std::move(item));
  }
  // Larger dtypes first keeps every tensor aligned.
  for (auto& shard : shards) {
    std::ranges::stable_sort(shard, std::greater{}, [](const Item& item) { return dtype_size(item.dtype); });
  }
  return shards;
}

// Asks for the elements of an item in pieces: as many at once as consumers of values (rows of blocks, say)
// want.
void ask(const Item& item, const ParamSource& source, int64_t begin, std::span<float> out) {
  for (size_t at = 0; at < out.size(); at += kPiece) {
    const auto piece = out.subspan(at, std::min<size_t>(out.size() - at, kPiece));
    source(*item.spec, item.offset + begin + static_cast<int64_t>(at), piece);
  }
}

void write_plain(const Item& item, const ParamSource& source, SafetensorsWriter& writer) {
  const int64_t numel = item.numel();
  std::vector<float> values(static_cast<size_t>(std::min(numel, kPiece)));
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_size(item.dtype)));
  for (int64_t begin = 0; begin < numel; begin += kPiece) {
    const auto count = static_cast<size_t>(std::min(numel - begin, kPiece));
    const auto piece = std::span(values).first(count);
    const auto out = std::span(bytes).first(count * static_cast<size_t>(dtype_size(item.dtype)));
    ask(item, source, begin, piece);
    encode(piece, item.dtype, out);
    writer.write(out);
  }
}

// A row of blocks in memory at a time, and the scales of the tensor. Returns the scales.
std::vector<float> write_fp8(const Item& item, const ParamSource& source, SafetensorsWriter& writer) {
  const int64_t rows = item.shape[0], cols = item.shape[1], band = std::min(rows, kFp8Block);
  const auto width = static_cast<size_t>(item.scale_shape()[1]);
  std::vector<float> values(static_cast<size_t>(band * cols)), scales(item.scale_bytes() / sizeof(float));
  std::vector<std::byte> codes(values.size());
  for (int64_t row = 0; row < rows; row += band) {
    const auto count = static_cast<size_t>(std::min(band, rows - row) * cols);
    const auto block_row = static_cast<size_t>(row / kFp8Block);
    ask(item, source, row * cols, std::span(values).first(count));
    quantise(std::span(values).first(count), cols, std::span(codes).first(count),
             std::span(scales).subspan(block_row * width, width));
    writer.write(std::span(codes).first(count));
  }
  return scales;
}

void write_shard(const fs::path& path, const std::vector<Item>& items, const ParamSource& source) {
  std::vector<SafetensorsWriter::Entry> entries;
  uint64_t scale_bytes = 0, filled = 0;
  for (const Item& item : items) {  // first, so that they are aligned; known last
    if (!item.is_fp8()) continue;
    entries.push_back({fp8_scale_name(item.name), DType::f32, item.scale_shape()});
    scale_bytes += item.scale_bytes();
  }
  for (const Item& item : items) entries.push_back({item.name, item.dtype, item.shape});
  SafetensorsWriter writer(path, entries);
  writer.skip(scale_bytes);
  for (const Item& item : items) {
    if (!item.is_fp8()) {
      write_plain(item, source, writer);
      continue;
    }
    const std::vector<float> scales = write_fp8(item, source, writer);
    writer.fill(filled, std::as_bytes(std::span(scales)));
    filled += item.scale_bytes();
  }
  writer.finish();
}

void write_weights(const fs::path& folder, const std::vector<std::vector<Item>>& shards,
                   const ParamSource& source) {
  if (shards.size() == 1) return write_shard(folder / "model.safetensors", shards.front(), source);
  Json weight_map = Json::object();
  auto& map = weight_map.get_ref<Json::object_t&>();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard(folder / name, shards[i], source);
    for (const Item& item : shards[i]) {
      map.emplace_back(item.name, name);  // names differ: no search for an equal one
      if (item.is_fp8()) map.emplace_back(fp8_scale_name(item.name), name);
      total += item.bytes();
    }
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  write_atomically(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

Json config_json(const ModelConfig& config, DType dtype) {
  Json json = config.to_json();
  json["architectures"] = {"DeepseekV3ForCausalLM"};
  json["model_type"] = "deepseek_v3";
  json["torch_dtype"] = dtype == DType::f16 ? "float16" : dtype == DType::f32 ? "float32" : "bfloat16";
  // What the source said of its own files: their dtype by its newer key, their Python code.
  for (const char* key : {"dtype", "auto_map"}) json.erase(key);
  if (dtype == DType::f8_e4m3) {
    json["quantization_config"] = {{"activation_scheme", "dynamic"},
                                   {"fmt", "e4m3"},
                                   {"quant_method", "fp8"},
                                   {"weight_block_size", {kFp8Block, kFp8Block}}};
  }
  return json;
}

// A folder that disappears unless it is kept.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& target) : path_(target) {
    path_ += fmt::format(".tmp-{}", ::getpid());
    std::error_code error;
    fs::remove_all(path_, error);  // of a dead process that had our id
    fs::create_directories(path_, error);
    if (error) throw RunError(printable(path_.string(), 400), error.message());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const fs::path& path() const { return path_; }
  void keep_as(const fs::path& target) {
    fsync_directory(path_);
    std::error_code error;
    fs::rename(path_, target, error);
    if (error) throw RunError(printable(target.string(), 400), "rename: " + error.message());
    path_.clear();
    fsync_directory(target.parent_path());
  }

 private:
  fs::path path_;
};

}  // namespace

bool is_fp8_weight(const ParamSpec& spec) {
  switch (spec.role) {
    case Role::q_proj:
    case Role::q_a_proj:
    case Role::q_b_proj:
    case Role::kv_a_proj:
    case Role::kv_b_proj:
    case Role::o_proj:
    case Role::gate_proj:
    case Role::up_proj:
    case Role::down_proj:
    case Role::experts_gate_up:
    case Role::experts_down:
    case Role::shared_gate_proj:
    case Role::shared_up_proj:
    case Role::shared_down_proj:
      return true;
    default:
      return false;
  }
}

void write_hf_folder(const fs::path& folder, const ModelConfig& config, const ParamSource& source,
                     const HfWriteOptions& options) {
  fs::path target = folder.lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/" names the folder "out"
  if (fs::exists(fs::symlink_status(target))) {
    throw UsageError(printable(target.string(), 400), "exists already", "name a new folder");
  }
  const ParamTable table = param_table(config);
  TemporaryFolder temporary(target);
  write_weights(temporary.path(),
                cut_shards(list_items(table, config, options.dtype), options.max_shard_bytes), source);
  write_atomically(temporary.path() / "config.json", config_json(config, options.dtype).dump(2) + "\n");
  temporary.keep_as(target);
}

}  // namespace dsv3
