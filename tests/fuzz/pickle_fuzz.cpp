// libFuzzer's entry to the pickle parser: any bytes either parse or throw dsv3::Error, and what parses can be
// written and read again, to the same bytes.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "dsv3/base/error.h"
#include "dsv3/formats/pickle.h"

namespace {

constexpr std::string_view kGlobals[] = {"torch Size", "collections OrderedDict", "_codecs encode",
                                         "torch FloatStorage", "torch._utils _rebuild_tensor_v2"};

dsv3::PickleValue parse(std::span<const std::byte> bytes) {
  return dsv3::parse_pickle(bytes, "fuzz", "", {.globals = kGlobals, .persistent_ids = true});
}

// Nodes of the tree when each shared one is counted again; at most `limit`: a bomb has 2^100 of them.
size_t tree_size(const dsv3::PickleValue& value, size_t limit) {
  using enum dsv3::PickleKind;
  size_t size = 1 + (value.kind() >= text ? value.text().size() : 0);
  if (value.kind() < tuple || value.is(global)) return size;
  for (const dsv3::PickleValue& item : value.items()) {
    if (size > limit) break;
    size += tree_size(item, limit - size);
  }
  return size;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const dsv3::PickleValue value = parse(std::as_bytes(std::span(data, size)));
    if (tree_size(value, 10'000) > 10'000) return 0;
    const std::string once = dsv3::write_pickle(value);
    if (dsv3::write_pickle(parse(std::as_bytes(std::span(once)))) != once) abort();
  } catch (const dsv3::Error&) {
  }
  return 0;
}
