#pragma once
// Whether memory that was lent stays what and where it was.

#include <ATen/ATen.h>

#include <cstring>
#include <stdexcept>
#include <vector>

namespace dsv3::test {

// A tensor that is used here and kept alive by somebody else. Both looks throw logic_error.
class Borrowed {
 public:
  explicit Borrowed(const at::Tensor& x)
      : storage_(x.storage().getWeakStorageImpl()),
        options_(x.options()),
        offset_(x.storage_offset()),
        sizes_(x.sizes().vec()) {}

  at::Tensor get() const {
    const auto storage = storage_.lock();
    if (!storage) throw std::logic_error("a tensor was given up under way");
    return at::empty({0}, options_).set_(c10::Storage(storage), offset_, sizes_);
  }
  // From here on it has to stay as it is.
  void watch() { watched_ = get().clone(); }
  void check() const {
    const at::Tensor x = get();
    // Byte by byte: NaN equals itself.
    if (watched_.defined() && x.nbytes() > 0 &&
        std::memcmp(x.const_data_ptr(), watched_.const_data_ptr(), x.nbytes()) != 0)
      throw std::logic_error("a tensor changed under way");
  }

 private:
  c10::weak_intrusive_ptr<c10::StorageImpl> storage_;
  at::TensorOptions options_;
  int64_t offset_;
  std::vector<int64_t> sizes_;
  at::Tensor watched_;
};

}  // namespace dsv3::test
