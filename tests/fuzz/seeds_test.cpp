// Each fuzz target over its seeds, among which every input that once was a finding is kept: what they may not
// do is abort, and under sanitizers any of what these find. The build gives each target's entry its own name.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>

#include "dsv3/base/file.h"

#define DSV3_FUZZ_TARGETS(X) \
  X(dcp_metadata) X(hf_index) X(manifest) X(pickle) X(safetensors) X(tokenizer) X(torch_item)

#define DSV3_DECLARE(name) extern "C" int fuzz_##name(const uint8_t* data, size_t size);
DSV3_FUZZ_TARGETS(DSV3_DECLARE)
#undef DSV3_DECLARE

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, int (*)(const uint8_t*, size_t)> kTargets = {
#define DSV3_ENTRY(name) {#name, fuzz_##name},
    DSV3_FUZZ_TARGETS(DSV3_ENTRY)
#undef DSV3_ENTRY
};
const fs::path kFolder = fs::path(DSV3_SOURCE_DIR) / "tests/fuzz";

TEST(FuzzSeeds, NoneIsAFinding) {
  for (const auto& [name, target] : kTargets) {
    size_t seeds = 0;
    for (const auto& entry : fs::directory_iterator(kFolder / (name + ".seeds"))) {
      SCOPED_TRACE(entry.path());
      const std::string bytes = read_text(entry.path(), 1 << 20);
      EXPECT_EQ(target(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0);
      ++seeds;
    }
    EXPECT_GT(seeds, 0u) << name;
  }
}

TEST(FuzzSeeds, NoTargetIsLeftOut) {
  const std::string suffix = "_fuzz.cpp";
  size_t targets = 0;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(suffix)) continue;
    EXPECT_TRUE(kTargets.contains(name.substr(0, name.size() - suffix.size()))) << name;
    ++targets;
  }
  EXPECT_EQ(targets, kTargets.size());
}

}  // namespace
}  // namespace dsv3
