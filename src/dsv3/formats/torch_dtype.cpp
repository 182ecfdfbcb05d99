#include "dsv3/formats/torch_dtype.h"

#include <algorithm>

namespace dsv3 {
namespace {

constexpr std::string_view kUntyped = "torch.storage UntypedStorage";
constexpr TorchDType kTypes[] = {
    {DType::f64, "torch float64", "torch DoubleStorage"},
    {DType::f32, "torch float32", "torch FloatStorage"},
    {DType::f16, "torch float16", "torch HalfStorage"},
    {DType::bf16, "torch bfloat16", "torch BFloat16Storage"},
    {DType::f8_e4m3, "torch float8_e4m3fn", kUntyped},
    {DType::i64, "torch int64", "torch LongStorage"},
    {DType::i32, "torch int32", "torch IntStorage"},
    {DType::i16, "torch int16", "torch ShortStorage"},
    {DType::i8, "torch int8", "torch CharStorage"},
    {DType::u64, "torch uint64", kUntyped},
    {DType::u32, "torch uint32", kUntyped},
    {DType::u16, "torch uint16", kUntyped},
    {DType::u8, "torch uint8", "torch ByteStorage"},
    {DType::boolean, "torch bool", "torch BoolStorage"},
};
static_assert(static_cast<size_t>(DType::boolean) + 1 == std::size(kTypes));

}  // namespace

std::span<const TorchDType> torch_dtypes() { return kTypes; }

const TorchDType& torch_dtype(DType dtype) { return kTypes[static_cast<int>(dtype)]; }

std::optional<DType> dtype_of_torch(std::string_view global) {
  const auto* it = std::ranges::find(kTypes, global, &TorchDType::global);
  return it == std::end(kTypes) ? std::nullopt : std::optional(it->dtype);
}

}  // namespace dsv3
