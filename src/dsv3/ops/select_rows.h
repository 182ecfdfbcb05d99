#pragma once
// Rows by index, on every device.

#include <ATen/core/Tensor.h>

namespace dsv3 {

// x.index_select(0, rows_R) outside any graph; on meta, where libtorch has no kernel for it, an empty tensor
// of its shape.
at::Tensor select_rows(const at::Tensor& x, const at::Tensor& rows_R);

}  // namespace dsv3
