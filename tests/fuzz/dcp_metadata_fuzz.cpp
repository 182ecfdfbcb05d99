// libFuzzer's entry to the .metadata of distributed checkpoints: any bytes either parse or throw dsv3::Error,
// and what parses can be written and read again, to the same bytes.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "dsv3/base/error.h"
#include "dsv3/formats/dcp_metadata.h"
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string once = dsv3::write_dcp_metadata(dsv3::read_dcp_metadata(fuzz_file(data, size)));
    const auto* bytes = reinterpret_cast<const uint8_t*>(once.data());
    if (dsv3::write_dcp_metadata(dsv3::read_dcp_metadata(fuzz_file(bytes, once.size()))) != once) abort();
  } catch (const dsv3::Error&) {
  }
  return 0;
}
