#pragma once
// Blocks of row-major matrices in files, as they lie there and transposed.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "dsv3/base/file.h"

namespace dsv3 {

// Rows [row, row + rows) and columns [col, col + cols) of a matrix.
struct MatrixBlock {
  int64_t row = 0, rows = 0, col = 0, cols = 0;
};

// Elements [begin, end) of a row-major matrix of `width` columns as blocks in order, at most three: the rest
// of a row, whole rows, the start of a row. fn(block, elements before it).
void for_each_block(int64_t width, int64_t begin, int64_t end,
                    const std::function<void(const MatrixBlock&, int64_t)>& fn);

// A row-major matrix from byte `begin` of a file on: `width` columns of elements of `size` bytes.
struct StoredMatrix {
  const InputFile& file;
  uint64_t begin = 0;
  int64_t width = 0, size = 0;
};
// The block, which lies in the matrix, to `out`: its rows `stride` elements apart. A read for each row.
void read_block(const StoredMatrix& matrix, const MatrixBlock& block, std::byte* out, int64_t stride);
// The block's transpose: a column of the block is a row of out. In bands of rows of 1 MiB, one row at least.
void read_block_transposed(const StoredMatrix& matrix, const MatrixBlock& block, std::byte* out,
                           int64_t stride);

}  // namespace dsv3
