#include "dsv3/convert/dcp_writer.h"

namespace dsv3 {
namespace {

constexpr uint64_t kAlignment = 64;  // of an item in its file, as its data is within the item

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

std::vector<std::string> dcp_keys(const ParamSpec& spec, const ModelConfig& config) {
  if (spec.role == Role::embed_tokens && config.tie_word_embeddings) return {spec.name, "lm_head.weight"};
  return {spec.name};
}

DcpFileWriter::DcpFileWriter(const std::filesystem::path& path)
    : name_(path.filename().string()), file_(path) {}

void DcpFileWriter::write(std::span<const std::byte> bytes) {
  file_.write(bytes);
  hasher_.update(bytes);
}

std::string DcpFileWriter::padding() const {
  return std::string((kAlignment - file_.size() % kAlignment) % kAlignment, '\0');
}

void DcpFileWriter::tensor(const std::string& key, const std::vector<PathPart>& path, DType dtype,
                           const std::vector<int64_t>& shape, const std::vector<int64_t>& offsets,
                           const std::vector<int64_t>& sizes, std::span<const std::byte> data) {
  tensor(key, path, dtype, shape, offsets, sizes, data, make_torch_tensor(dtype, sizes, data));
}

void DcpFileWriter::tensor(const std::string& key, const std::vector<PathPart>& path, DType dtype,
                           const std::vector<int64_t>& shape, const std::vector<int64_t>& offsets,
                           const std::vector<int64_t>& sizes, std::span<const std::byte> data,
                           const TorchItem& item) {
  const std::string zeros = padding();
  const uint64_t begin = file_.size() + zeros.size();
  write(bytes_of(zeros + item.head));
  write(data);
  write(bytes_of(item.tail));
  const auto [it, is_new] = tensors_.try_emplace(key, part_.metadata.tensors.size());
  if (is_new) {
    part_.metadata.tensors.push_back(
        {.key = key, .dtype = dtype, .shape = shape, .chunks = {}, .path = path});
  }
  part_.metadata.tensors[it->second].chunks.push_back(
      {.offsets = offsets, .sizes = sizes, .file = name_, .offset = begin, .length = file_.size() - begin});
}

void DcpFileWriter::object(const std::string& key, const std::vector<PathPart>& path,
                           const PickleValue& value) {
  const std::string zeros = padding();
  const uint64_t begin = file_.size() + zeros.size();
  write(bytes_of(zeros + make_torch_object(value)));
  part_.metadata.objects.push_back(
      {.key = key, .file = name_, .offset = begin, .length = file_.size() - begin, .path = path});
}

DcpPart DcpFileWriter::finish() {
  file_.commit();
  part_.files.emplace(name_, hasher_.finish());
  return std::move(part_);
}

void finish_dcp_folder(const std::filesystem::path& folder, DcpPart part) {
  write_atomically(folder / ".metadata", write_dcp_metadata(joined(std::move(part.metadata))));
  write_manifest(folder, std::move(part.files));
}

}  // namespace dsv3
