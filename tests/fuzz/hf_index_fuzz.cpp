// libFuzzer's entry to model.safetensors.index.json: any bytes either parse or throw dsv3::Error, and what
// parses keeps what hf_index.h promises: names in order, none twice, each in a shard that is a plain file
// name and is used.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/formats/hf_index.h"
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const dsv3::HfIndex index = dsv3::read_hf_index(fuzz_file(data, size));
    std::vector<bool> used(index.shards.size());
    const std::string* last = nullptr;
    for (const dsv3::HfIndex::Entry& entry : index.entries) {
      if (entry.tensor.empty() || (last != nullptr && entry.tensor <= *last)) abort();
      used.at(entry.shard) = true;
      last = &entry.tensor;
    }
    for (size_t i = 0; i < used.size(); ++i) {
      const std::string& shard = index.shards[i];
      if (!used[i] || shard.empty() || shard == ".." || shard.find('/') != shard.npos) abort();
    }
  } catch (const dsv3::Error&) {
  }
  return 0;
}
