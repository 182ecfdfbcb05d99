#pragma once
// XXH3 of 128 bits: finds damage, no forgery. Source: xxHash's doc/xxhash_spec.md; the seed is 0.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace dsv3 {

struct Hash128 {
  uint64_t low = 0, high = 0;
  auto operator<=>(const Hash128&) const = default;
};

Hash128 hash_bytes(std::span<const std::byte> bytes);

// The canonical form, high bits first: 32 lower-case digits, as `xxhsum -H2` prints them.
std::string to_hex(const Hash128& hash);
// Nothing for any other text: upper-case digits would be a second spelling of the same hash.
std::optional<Hash128> hash_from_hex(std::string_view text);

// The hash of bytes that come in pieces; any cut gives the same.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  Hash128 digest() const;  // of everything so far
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsv3
