#include "dsv3/data/permutation.h"

#include <bit>

#include "dsv3/base/philox.h"

namespace dsv3 {
namespace {

// Four rounds make a Feistel network pseudo-random for wide halves; halves of one or two bits need more.
constexpr uint64_t kRounds = 10;

uint64_t low_mask(int bits) { return (uint64_t{1} << bits) - 1; }

}  // namespace

KeyedPermutation::KeyedPermutation(int64_t n, uint64_t seed, uint64_t epoch)
    : n_(static_cast<uint64_t>(n)), key_(philox_u64(seed, hash_name("shuffle"), epoch)) {
  int bits = std::bit_width(n_ - 1);
  low_bits_ = bits - bits / 2;
  high_bits_ = bits / 2;
}

int64_t KeyedPermutation::operator()(int64_t position) const {
  uint64_t value = static_cast<uint64_t>(position);
  do {
    uint64_t low = value & low_mask(low_bits_), high = value >> low_bits_;
    for (uint64_t round = 0; round < kRounds; round += 2) {
      low ^= philox_u64(key_, round, high) & low_mask(low_bits_);
      high ^= philox_u64(key_, round + 1, low) & low_mask(high_bits_);
    }
    value = high << low_bits_ | low;
  } while (value >= n_);
  return static_cast<int64_t>(value);
}

}  // namespace dsv3
