#include "dsv3/base/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace dsv3 {
namespace {

Hash128 from_xxh(XXH128_hash_t hash) { return {hash.low64, hash.high64}; }

std::optional<uint64_t> word_from_hex(std::string_view digits) {
  uint64_t word = 0;
  for (const char c : digits) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'a' && c <= 'f')) return std::nullopt;
    word = word << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return word;
}

}  // namespace

Hash128 hash_bytes(std::span<const std::byte> bytes) {
  return from_xxh(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string to_hex(const Hash128& hash) { return fmt::format("{:016x}{:016x}", hash.high, hash.low); }

std::optional<Hash128> hash_from_hex(std::string_view text) {
  if (text.size() != 32) return std::nullopt;
  const auto high = word_from_hex(text.substr(0, 16)), low = word_from_hex(text.substr(16));
  if (!high || !low) return std::nullopt;
  return Hash128{.low = *low, .high = *high};
}

// The library's own, allocated by it: the struct wants 64-byte alignment.
struct Hasher::State {
  State() : xxh(XXH3_createState()) {
    if (xxh == nullptr) throw std::bad_alloc();
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  XXH3_state_t* xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) { reset(); }
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}
Hash128 Hasher::digest() const { return from_xxh(XXH3_128bits_digest(state_->xxh)); }
void Hasher::reset() { XXH3_128bits_reset(state_->xxh); }

}  // namespace dsv3
