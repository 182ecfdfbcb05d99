#pragma once
// The constants of .idx that reader and writer share; the layout stands in indexed_dataset.h.

#include <array>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <string>

namespace dsv3::indexed_format {

static_assert(std::endian::native == std::endian::little,
              "token files are read and written without swapping");

inline constexpr std::array<char, 9> kMagic = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
inline constexpr uint64_t kVersion = 1;
inline constexpr uint8_t kInt32 = 4, kUint16 = 8;
inline constexpr uint64_t kHeaderBytes = 9 + 8 + 1 + 8 + 8;

inline std::filesystem::path bin_path(const std::filesystem::path& prefix) {
  return prefix.string() + ".bin";
}
inline std::filesystem::path idx_path(const std::filesystem::path& prefix) {
  return prefix.string() + ".idx";
}

}  // namespace dsv3::indexed_format
