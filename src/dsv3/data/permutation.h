#pragma once
// A shuffled order of any length without a table: position -> element, from (seed, epoch) alone.

#include <cstdint>

namespace dsv3 {

// A bijection on [0, n), 1 <= n <= 2^62: a Feistel network of Philox bits on the smallest power of two >= n,
// walked until it lands below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002; fewer than
// two passes on average). Costs a few hundred ns a call, no memory.
class KeyedPermutation {
 public:
  KeyedPermutation(int64_t n, uint64_t seed, uint64_t epoch);
  // 0 <= position < n.
  int64_t operator()(int64_t position) const;

 private:
  uint64_t n_, key_;
  int low_bits_, high_bits_;
};

}  // namespace dsv3
