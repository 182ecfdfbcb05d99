#pragma once
// Counter-based random numbers: a value depends on (seed, purpose, index) alone, never on order or layout.
// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace dsv3 {

// Ten rounds on one counter block.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// 64 bits from (seed, purpose, index); purposes are hashed names such as "shuffle" or a parameter's name.
uint64_t philox_u64(uint64_t seed, uint64_t purpose, uint64_t index);

// FNV-1a, 64 bits: names to purposes.
uint64_t hash_name(std::string_view name);

// out[i] = std * standard normal number (first_index + i) of the stream (seed, purpose), by Box-Muller. Any
// cut of the index range gives the same values.
void philox_normal(std::span<float> out, double std, uint64_t seed, uint64_t purpose, uint64_t first_index);

}  // namespace dsv3
