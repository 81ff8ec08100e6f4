// torch's tensors as the arrays that the passes and formulas take.

#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "shape.h"

namespace normshift {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;
using Integers = std::vector<int64_t>;

inline std::string shape_of(const Tensor& tensor) {
  std::string text = "[";
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(tensor.size(axis));
  }
  return text + "]";
}

// Whether all but the batch axis lies densely, channels first or last.
inline bool dense(const Tensor& x, bool channels_last) {
  int64_t expected = 1;
  auto next = [&](int64_t axis) {
    int64_t size = x.size(axis);
    bool fits = size == 1 || x.stride(axis) == expected;
    expected *= size;
    return fits;
  };
  bool fits = !channels_last || next(1);
  for (int64_t axis = x.dim() - 1; axis > 1; --axis) fits = next(axis) && fits;
  return (channels_last || next(1)) && fits;
}

inline Shape shape_and_layout(const Tensor& x) {
  Shape shape{x.size(0), x.size(1), 1, !dense(x, false)};
  for (int64_t axis = 2; axis < x.dim(); ++axis) shape.P *= x.size(axis);
  STD_TORCH_CHECK(!shape.rows || dense(x, true), "normshift: neither planes nor rows");
  return shape;
}

// f(a null pointer of the activation's type).
template <typename F>
auto by_type(const Tensor& x, const F& f) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return f(static_cast<float*>(nullptr));
    case ScalarType::BFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case ScalarType::Half:
      return f(static_cast<Float16*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "normshift: no compiled kernel for this type of activation");
  }
}

template <typename T>
Images<const T> read(const Tensor& x) {
  return {static_cast<const T*>(x.const_data_ptr()), x.stride(0)};
}
template <typename T>
Images<T> written(const Tensor& x) {
  return {static_cast<T*>(x.mutable_data_ptr()), x.stride(0)};
}

inline Tensor floats(std::initializer_list<int64_t> size) {
  int64_t sizes[2], strides[2] = {1, 1}, dim = size.size();
  std::copy(size.begin(), size.end(), sizes);
  if (dim == 2) strides[0] = sizes[1];
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, &made));
  return Tensor(made);
}

inline Tensor vectors(const Shape& shape) { return floats({shape.N, shape.C}); }
inline Vectors vectors_in(const Tensor& tensor, const Shape& shape) {
  return {static_cast<float*>(tensor.mutable_data_ptr()), shape.C};
}

inline Tensor strided(const Tensor& x, const Integers& strides) {
  Integers sizes;
  for (int64_t axis = 0; axis < x.dim(); ++axis) sizes.push_back(x.size(axis));
  int32_t type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &type));
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.data(), strides.data(), type, aoti_torch_device_type_cpu(), 0, &made));
  return Tensor(made);
}

// An activation to be written, laid out as x.
inline Tensor output(const Tensor& x, const Shape& shape) {
  Integers strides;
  for (int64_t axis = 0; axis < x.dim(); ++axis) strides.push_back(x.stride(axis));
  if (strides[0] == shape.C * shape.P) return strided(x, strides);  // dense as a whole
  Tensor y = torch::stable::empty_like(x);
  if (dense(y, shape.rows)) return y;
  strides[0] = shape.C * shape.P;
  return strided(x, strides);
}

// The gradient as planes or rows, whatever its strides were.
inline Tensor like(const Tensor& dy, const Tensor& x, const Shape& shape) {
  bool same = dy.dim() == x.dim() && dy.scalar_type() == x.scalar_type();
  for (int64_t axis = 0; same && axis < x.dim(); ++axis) same = dy.size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, "normshift: dy is not like x");
  if (dense(dy, shape.rows)) return dy;
  Tensor copy = output(x, shape);
  return torch::stable::copy_(copy, dy);
}

// A tensor of so many values in float32; held, as it may be a contiguous copy.
struct Input {
  Maybe held;
  const float* data = nullptr;

  Input(const Maybe& tensor, int64_t values) {
    if (!tensor) return;
    STD_TORCH_CHECK(tensor->scalar_type() == ScalarType::Float, "normshift: kernels take vectors in float32");
    STD_TORCH_CHECK(
        tensor->numel() == values, "normshift: ", values, " values were expected, not a tensor of shape ",
        shape_of(*tensor), ": has a parameter or buffer of the norm been replaced?");
    held = tensor->is_contiguous() ? *tensor : torch::stable::contiguous(*tensor);
    data = static_cast<const float*>(held->const_data_ptr());
  }
  Vectors vectors(int64_t C) const { return {const_cast<float*>(data), C}; }  // to be read
};

// A tensor of so many values in float32 that is changed, not a copy of it.
inline float* changed(const Maybe& tensor, int64_t values) {
  if (!tensor) return nullptr;
  Input same(tensor, values);
  STD_TORCH_CHECK(tensor->is_contiguous(), "normshift: running averages have to be contiguous");
  return static_cast<float*>(tensor->mutable_data_ptr());
}

inline float* data_of(const Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

}  // namespace normshift
