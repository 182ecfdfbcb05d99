// libFuzzer's entry to the safetensors parser: any bytes either parse or throw dsv3::Error, and what parses
// can be read.

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // One file of a private folder, rewritten each time: the parser takes a path, since it must refuse what is
  // no file.
  static const std::string folder = [] {
    char name[] = "/dev/shm/dsv3-fuzz-XXXXXX";
    if (mkdtemp(name) == nullptr) abort();
    return std::string(name);
  }();
  static const std::string path = folder + "/model.safetensors";
  static const bool cleanup = std::atexit([] {
                                unlink(path.c_str());
                                rmdir(folder.c_str());
                              }) == 0;
  if (!cleanup) abort();
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) abort();
  close(file);
  try {
    const dsv3::SafetensorsFile parsed(path);
    for (const dsv3::TensorInfo& tensor : parsed.tensors()) {
      std::vector<std::byte> bytes(tensor.end - tensor.begin);
      parsed.read(tensor, bytes);
      if (parsed.find(tensor.name) != &tensor) abort();
    }
  } catch (const dsv3::Error&) {
  }
  return 0;
}
