// libFuzzer's entry to the safetensors parser: any bytes either parse or throw dsv3::Error, and what parses
// can be read.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/formats/safetensors.h"
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const dsv3::SafetensorsFile parsed(fuzz_file(data, size));
    for (const dsv3::TensorInfo& tensor : parsed.tensors()) {
      std::vector<std::byte> bytes(tensor.end - tensor.begin);
      parsed.read(tensor, bytes);
      if (parsed.find(tensor.name) != &tensor) abort();
    }
  } catch (const dsv3::Error&) {
  }
  return 0;
}
