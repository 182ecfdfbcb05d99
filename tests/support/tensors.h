#pragma once
// Tensors from files and comparisons of them, for the engine's tests.

#include <ATen/ATen.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "dsv3/formats/npy.h"
#include "dsv3/formats/safetensors.h"
#include "dsv3/ops/options.h"

namespace dsv3::test {

// The back end that this run of the suite proves.
inline Backend backend() {
  const char* name = std::getenv("DSV3_TEST_BACKEND");
  return name && std::string(name) == "aten" ? Backend::aten : Backend::fast;
}

inline at::Tensor read_npy(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return {};
  NpyArray array = read_npy_int(path);
  return at::tensor(array.values, at::kLong).view(array.shape);
}

inline std::map<std::string, at::Tensor> read_safetensors(const std::filesystem::path& path) {
  static const std::map<DType, at::ScalarType> kTypes = {{DType::f64, at::kDouble},
                                                         {DType::f32, at::kFloat},
                                                         {DType::bf16, at::kBFloat16},
                                                         {DType::i64, at::kLong}};
  SafetensorsFile file(path);
  std::map<std::string, at::Tensor> out;
  for (const TensorInfo& info : file.tensors()) {
    at::Tensor tensor = at::empty(info.shape, kTypes.at(info.dtype));
    file.read(info, {static_cast<std::byte*>(tensor.data_ptr()), static_cast<size_t>(info.end - info.begin)});
    out[info.name] = tensor;
  }
  return out;
}

// ‖a − b‖ / max(‖b‖, floor), in fp64; a missing shape match is infinite.
inline double relative_error(const at::Tensor& a, const at::Tensor& b, double floor = 0) {
  if (a.sizes() != b.sizes()) return INFINITY;
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double size = std::max(y.norm().item<double>(), floor);
  const double difference = (x - y).norm().item<double>();
  return size == 0 ? difference : difference / size;
}

}  // namespace dsv3::test
