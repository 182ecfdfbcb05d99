#pragma once
// One archive of torch.save: a tensor or a plain Python object, as the items of a distributed checkpoint are.
// Source: torch/serialization.py and torch/_utils.py of PyTorch 2.11; a ZIP of stored records
//   archive/data.pkl, archive/byteorder, archive/version, archive/data/0.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/base/file.h"
#include "dsv3/formats/dtype.h"
#include "dsv3/formats/pickle.h"

namespace dsv3 {

struct TorchTensor {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, size = 0;  // bytes of the file: the tensor, contiguous and row-major, little-endian
  bool transposed = false;       // [R, C] whose bytes are those of [C, R]: PyTorch stores a matrix's .t() so
  // The storage that the tensor is a part of, mostly the same bytes; the CRC is over all of it.
  uint64_t storage_begin = 0, storage_size = 0;
  uint32_t crc = 0;
};

// The tensor in bytes [offset, offset + length) of file; name is the field of errors. Reads and checks all
// but the tensor's bytes. InputError on what zip.h and pickle.h refuse, other classes and dtypes than
// DType's, strides that are neither row-major (of dims above 1) nor a transposed matrix's, ranges outside of
// the storage, a storage whose record has another size, big-endian data.
TorchTensor read_torch_tensor(const InputFile& file, uint64_t offset, uint64_t length, std::string_view name);
// Reads the tensor's storage in pieces; InputError when it differs from its CRC.
void check_torch_tensor(const InputFile& file, const TorchTensor& tensor, std::string_view name);

// An archive of None, bool, int64, float, str, bytes, tuple, list and dict; anything else is an InputError.
// All CRCs are checked.
PickleValue read_torch_object(const InputFile& file, uint64_t offset, uint64_t length, std::string_view name);

// head, the data and tail are an archive that torch.load(weights_only=True) reads. The data begins at a
// multiple of 64 bytes of the archive.
struct TorchItem {
  std::string head, tail;
};
// data has numel(shape) elements, row-major; std::logic_error otherwise. The sizes of head and tail depend on
// dtype and shape alone, their bytes on the CRC too.
TorchItem make_torch_tensor(DType dtype, std::span<const int64_t> shape, std::span<const std::byte> data);
// With the CRC-32 (zip.h) of data that is not in memory at once.
TorchItem make_torch_tensor(DType dtype, std::span<const int64_t> shape, uint32_t crc);
// Bytes of head and tail.
uint64_t torch_tensor_bytes(DType dtype, std::span<const int64_t> shape);
// An archive of a plain object.
std::string make_torch_object(const PickleValue& value);

}  // namespace dsv3
