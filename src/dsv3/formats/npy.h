#pragma once
// Arrays of numpy's .npy files, versions 1.0 to 3.0, as far as token ids, labels, masks and positions need
// them. Source: numpy.lib.format.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace dsv3 {

struct NpyArray {
  std::vector<int64_t> shape;
  std::vector<int64_t> values;  // row-major
};

// bool, uint8, uint16, int32 or int64, little-endian, C order; false is 0. InputError{path, descr |
// fortran_order | shape | byte, why} for anything else, for a shape that does not match the bytes, and for
// trailing bytes.
NpyArray read_npy_int(const std::filesystem::path& path);

// Version 1.0, '<i8'. values has numel(shape) elements.
void write_npy_int64(const std::filesystem::path& path, std::span<const int64_t> shape,
                     std::span<const int64_t> values);

}  // namespace dsv3
