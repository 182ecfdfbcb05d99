#include "dsv3/base/hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace dsv3 {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// XXHash's own sanity check: byte i of its buffer is the top byte of PRIME32^(2^i) times itself.
std::vector<std::byte> sanity_buffer(size_t size) {
  std::vector<std::byte> buffer(size);
  uint64_t generator = 2654435761u;
  for (std::byte& b : buffer) {
    b = static_cast<std::byte>(generator >> 56);
    generator *= 11400714785074694797ull;
  }
  return buffer;
}

TEST(Hash, PublishedValues) {
  EXPECT_EQ(to_hex(hash_bytes({})), "99aa06d3014798d86001c324468d497f");
  // tests/sanity_test_vectors.h of xxHash: lengths that take each of its paths, seed 0.
  const auto buffer = sanity_buffer(403);
  const auto hash = [&](size_t size) { return hash_bytes(std::span(buffer).first(size)); };
  EXPECT_EQ(hash(1), (Hash128{0xC44BDFF4074EECDBull, 0xA6CD5E9392000F6Aull}));
  EXPECT_EQ(hash(6), (Hash128{0x3E7039BDDA43CFC6ull, 0x082AFE0B8162D12Aull}));
  EXPECT_EQ(hash(12), (Hash128{0x061A192713F69AD9ull, 0x6E3EFD8FC7802B18ull}));
  EXPECT_EQ(hash(24), (Hash128{0x1E7044D28B1B901Dull, 0x0CE966E4678D3761ull}));
  EXPECT_EQ(hash(48), (Hash128{0xF942219AED80F67Bull, 0xA002AC4E5478227Eull}));
  EXPECT_EQ(hash(81), (Hash128{0x5E8BAFB9F95FB803ull, 0x4952F58181AB0042ull}));
  EXPECT_EQ(hash(222), (Hash128{0xF1AEBD597CEC6B3Aull, 0x337E09641B948717ull}));
  EXPECT_EQ(hash(403), (Hash128{0xCDEB804D65C6DEA4ull, 0x1B6DE21E332DD73Dull}));
}

TEST(Hash, HexIsCanonicalAndHasOneSpelling) {
  const Hash128 hash{.low = 0x0123456789abcdefull, .high = 0xfull};
  EXPECT_EQ(to_hex(hash), "000000000000000f0123456789abcdef");
  EXPECT_EQ(hash_from_hex("000000000000000f0123456789abcdef"), hash);
  for (const char* text : {"", "000000000000000f0123456789abcde", "000000000000000f0123456789abcdef0",
                           "000000000000000F0123456789abcdef", "00000000000000 f0123456789abcdef",
                           "0x0000000000000f0123456789abcdef", "000000000000000g0123456789abcdef"}) {
    EXPECT_EQ(hash_from_hex(text), std::nullopt) << text;
  }
}

TEST(Hash, PiecesGiveTheWhole) {
  const auto buffer = sanity_buffer(3000);
  const Hash128 whole = hash_bytes(buffer);
  for (size_t piece : {1, 7, 64, 255, 256, 257, 1024, 3000}) {
    Hasher hasher;
    for (size_t at = 0; at < buffer.size(); at += piece) {
      hasher.update(std::span(buffer).subspan(at, std::min(piece, buffer.size() - at)));
    }
    EXPECT_EQ(hasher.digest(), whole) << piece;
    EXPECT_EQ(hasher.digest(), whole) << "a digest changes nothing";
    Hasher moved = std::move(hasher);
    moved.reset();
    moved.update("abc");
    EXPECT_EQ(moved.digest(), hash_bytes(bytes_of("abc")));
  }
}

TEST(Hash, OrderIsTheOrderOfItsNumbers) {
  EXPECT_LT((Hash128{1, 5}), (Hash128{2, 0}));
  EXPECT_NE((Hash128{1, 5}), (Hash128{1, 6}));
}

}  // namespace
}  // namespace dsv3
