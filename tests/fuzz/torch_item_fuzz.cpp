// libFuzzer's entry to archives of torch.save: any bytes either are a tensor or an object, or throw
// dsv3::Error. A tensor lies within the file and has the size of its shape.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/formats/torch_item.h"
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const dsv3::InputFile file(fuzz_file(data, size));
  try {
    const dsv3::TorchTensor tensor = dsv3::read_torch_tensor(file, 0, file.size(), "w");
    uint64_t expected = static_cast<uint64_t>(dsv3::dtype_size(tensor.dtype));
    for (const int64_t dim : tensor.shape) expected *= static_cast<uint64_t>(dim);
    if (tensor.size != expected) abort();
    std::vector<std::byte> bytes(tensor.size);
    file.read(bytes, tensor.begin);
    dsv3::check_torch_tensor(file, tensor, "w");
  } catch (const dsv3::Error&) {
  }
  try {
    dsv3::read_torch_object(file, 0, file.size(), "o");
  } catch (const dsv3::Error&) {
  }
  return 0;
}
