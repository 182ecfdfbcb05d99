#include "dsv3/convert/matrix_block.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "support/files.h"

namespace dsv3 {
namespace {

TEST(ForEachBlock, IsTheRangeInOrderInAtMostThreeBlocks) {
  for (int64_t width : {1, 2, 3, 7})
    for (int64_t begin = 0; begin <= 30; ++begin)
      for (int64_t end = begin; end <= 30; ++end) {
        std::vector<int64_t> elements;
        int blocks = 0;
        for_each_block(width, begin, end, [&](const MatrixBlock& block, int64_t offset) {
          EXPECT_EQ(offset, static_cast<int64_t>(elements.size()));
          ++blocks;
          for (int64_t row = block.row; row < block.row + block.rows; ++row)
            for (int64_t col = block.col; col < block.col + block.cols; ++col)
              elements.push_back(row * width + col);
        });
        std::vector<int64_t> expected(static_cast<size_t>(end - begin));
        std::iota(expected.begin(), expected.end(), begin);
        EXPECT_EQ(elements, expected) << width << " " << begin << " " << end;
        EXPECT_LE(blocks, 3);
      }
}

// A matrix of 3 MiB: several bands, and tiles that do not divide. Each element of Size bytes tells its place.
template <class T>
void read_all_ways() {
  constexpr int64_t kSize = sizeof(T), kWidth = 700, kRows = 3 * (1 << 20) / kWidth / kSize;
  const test::TempDir dir;
  const auto value = [](int64_t row, int64_t col) { return static_cast<T>(row * 7919 + col * 31); };
  std::string bytes = "head";
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t col = 0; col < kWidth; ++col) {
      const T element = value(row, col);
      bytes.append(reinterpret_cast<const char*>(&element), sizeof element);
    }
  const InputFile file(test::write_file(dir / "matrix", bytes));
  const StoredMatrix matrix{file, 4, kWidth, kSize};
  for (const MatrixBlock& block : {MatrixBlock{0, kRows, 0, kWidth},
                                   {3, kRows - 5, 11, kWidth - 20},
                                   {7, 1, 5, 3},
                                   {kRows - 1, 1, 0, kWidth},
                                   {2, 0, 0, kWidth},
                                   {2, 5, 9, 0}})
    for (const int64_t apart : {0, 2}) {
      const auto of = [&](int64_t lines, int64_t stride) {
        return std::vector<T>(static_cast<size_t>(lines * stride), T{77});
      };
      std::vector<T> plain = of(block.rows, block.cols + apart), turned = of(block.cols, block.rows + apart);
      read_block(matrix, block, reinterpret_cast<std::byte*>(plain.data()), block.cols + apart);
      read_block_transposed(matrix, block, reinterpret_cast<std::byte*>(turned.data()), block.rows + apart);
      int64_t wrong = 0;
      for (int64_t row = 0; row < block.rows; ++row)
        for (int64_t col = 0; col < block.cols; ++col) {
          const T expected = value(block.row + row, block.col + col);
          wrong += plain[static_cast<size_t>(row * (block.cols + apart) + col)] != expected;
          wrong += turned[static_cast<size_t>(col * (block.rows + apart) + row)] != expected;
        }
      for (int64_t row = 0; row < block.rows; ++row)  // what lies between the rows stays
        for (int64_t col = block.cols; col < block.cols + apart; ++col)
          wrong += plain[static_cast<size_t>(row * (block.cols + apart) + col)] != T{77};
      EXPECT_EQ(wrong, 0) << kSize << " bytes, rows " << block.rows << ", columns " << block.cols;
    }
}

TEST(ReadBlock, OfEverySizeAsItLiesAndTransposed) {
  read_all_ways<uint8_t>();
  read_all_ways<uint16_t>();
  read_all_ways<uint32_t>();
  read_all_ways<uint64_t>();
}

}  // namespace
}  // namespace dsv3
