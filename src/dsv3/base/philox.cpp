#include "dsv3/base/philox.h"

#include <cmath>
#include <numbers>

namespace dsv3 {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  // The multipliers and the Weyl increments of the paper, table 2.
  constexpr uint64_t kMul0 = 0xD2511F53, kMul1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = kMul0 * counter[0], b = kMul1 * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

namespace {

std::array<uint32_t, 4> block(uint64_t seed, uint64_t purpose, uint64_t index) {
  auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  return philox4x32({low(index), high(index), low(purpose), high(purpose)}, {low(seed), high(seed)});
}

// Two independent standard normal numbers from two uniform words. The half keeps the logarithm finite.
std::array<double, 2> box_muller(uint32_t a, uint32_t b) {
  const double radius = std::sqrt(-2.0 * std::log((a + 0.5) * 0x1p-32));
  const double angle = 2.0 * std::numbers::pi * (b * 0x1p-32);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace

uint64_t philox_u64(uint64_t seed, uint64_t purpose, uint64_t index) {
  const auto words = block(seed, purpose, index);
  return words[0] | static_cast<uint64_t>(words[1]) << 32;
}

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

void philox_normal(std::span<float> out, double std, uint64_t seed, uint64_t purpose, uint64_t first_index) {
  for (size_t i = 0; i < out.size();) {
    // A block holds four numbers; the first one may start inside.
    const auto words = block(seed, purpose, (first_index + i) / 4);
    const auto left = box_muller(words[0], words[1]), right = box_muller(words[2], words[3]);
    const double normal[4] = {left[0], left[1], right[0], right[1]};
    for (size_t j = (first_index + i) % 4; j < 4 && i < out.size(); ++j, ++i) {
      out[i] = static_cast<float>(std * normal[j]);
    }
  }
}

}  // namespace dsv3
