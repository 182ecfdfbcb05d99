#include "dsv3/convert/matrix_block.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

namespace dsv3 {
namespace {

constexpr int64_t kBandBytes = 1 << 20;

// [rows, cols] in a row to [cols, rows] whose rows are `stride` elements apart. Size is known when compiled:
// a call of memcpy for each element would cost more than the rest.
template <size_t Size>
void transpose(const std::byte* in, int64_t rows, int64_t cols, std::byte* out, int64_t stride) {
  constexpr int64_t kTile = 32;  // of rows: their lines stay in the cache while the columns go by
  constexpr auto kSize = static_cast<int64_t>(Size);
  for (int64_t tile = 0; tile < rows; tile += kTile) {
    const int64_t last = std::min(rows, tile + kTile);
    for (int64_t col = 0; col < cols; ++col)
      for (int64_t row = tile; row < last; ++row)
        std::memcpy(out + (col * stride + row) * kSize, in + (row * cols + col) * kSize, Size);
  }
}

void transpose(int64_t size, const std::byte* in, int64_t rows, int64_t cols, std::byte* out,
               int64_t stride) {
  switch (size) {
    case 1:
      return transpose<1>(in, rows, cols, out, stride);
    case 2:
      return transpose<2>(in, rows, cols, out, stride);
    case 4:
      return transpose<4>(in, rows, cols, out, stride);
    default:
      return transpose<8>(in, rows, cols, out, stride);
  }
}

}  // namespace

void for_each_block(int64_t width, int64_t begin, int64_t end,
                    const std::function<void(const MatrixBlock&, int64_t)>& fn) {
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / width, col = at % width;
    MatrixBlock block{row, 1, col, std::min(width - col, end - at)};
    if (block.cols == width) block.rows = (end - at) / width;
    fn(block, at - begin);
    at += block.rows * block.cols;
  }
}

void read_block(const StoredMatrix& matrix, const MatrixBlock& block, std::byte* out, int64_t stride) {
  const int64_t size = matrix.size;
  const bool joined = block.cols == matrix.width && stride == block.cols;  // rows follow each other
  const int64_t reads = joined ? std::min<int64_t>(block.rows, 1) : block.rows;
  const int64_t count = joined ? block.rows * block.cols : block.cols;
  for (int64_t row = 0; row < reads; ++row) {
    const int64_t first = (block.row + row) * matrix.width + block.col;
    matrix.file.read({out + row * stride * size, static_cast<size_t>(count * size)},
                     matrix.begin + static_cast<uint64_t>(first * size));
  }
}

void read_block_transposed(const StoredMatrix& matrix, const MatrixBlock& block, std::byte* out,
                           int64_t stride) {
  const int64_t row_bytes = std::max<int64_t>(block.cols * matrix.size, 1);
  const int64_t rows = std::clamp<int64_t>(kBandBytes / row_bytes, 1, std::max<int64_t>(block.rows, 1));
  std::vector<std::byte> band(static_cast<size_t>(rows * row_bytes));
  for (int64_t row = 0; row < block.rows; row += rows) {
    const int64_t count = std::min(rows, block.rows - row);
    read_block(matrix, {block.row + row, count, block.col, block.cols}, band.data(), block.cols);
    transpose(matrix.size, band.data(), count, block.cols, out + row * matrix.size, stride);
  }
}

}  // namespace dsv3
