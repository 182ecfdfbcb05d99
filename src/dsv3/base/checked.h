#pragma once
// Arithmetic on sizes from outside: an overflow is a value, never wrapped.

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>

namespace dsv3 {

template <std::integral T>
std::optional<T> checked_add(T a, T b) {
  T out;
  return __builtin_add_overflow(a, b, &out) ? std::nullopt : std::optional<T>(out);
}

template <std::integral T>
std::optional<T> checked_mul(T a, T b) {
  T out;
  return __builtin_mul_overflow(a, b, &out) ? std::nullopt : std::optional<T>(out);
}

// Product of dims; nothing when one is negative or the product of any subset of them leaves int64
// (so [0, 2^62, 4] is refused too). An empty list is 1.
inline std::optional<int64_t> checked_numel(std::span<const int64_t> dims) {
  int64_t numel = 1;
  bool zero = false;
  for (int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      zero = true;
      continue;
    }
    auto next = checked_mul(numel, dim);
    if (!next) return std::nullopt;
    numel = *next;
  }
  return zero ? 0 : numel;
}

}  // namespace dsv3
