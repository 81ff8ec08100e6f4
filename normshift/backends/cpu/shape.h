// An activation in memory, and how work on it is cut.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "vectors.h"

namespace normshift {

constexpr int64_t GRAIN = 64 * 1024;        // values that are worth a thread
constexpr int64_t LARGE = 8 * 1024 * 1024;  // bytes of an activation that no cache keeps

// N images of C channels and P positions, in one of two layouts: planes (a channel's P positions lie together) or rows
// (a position's C channels do: channels-last).
struct Shape {
  int64_t N, C, P;
  bool rows;

  int64_t values() const { return N * C * P; }
  int64_t planes_a_task() const { return std::max<int64_t>(1, GRAIN / P); }
  int64_t images_a_task() const { return std::max<int64_t>(1, GRAIN / (C * P)); }
  // Into how many pieces the rows of an image are cut: enough for a dozen cores, where the images alone are not.
  int64_t pieces() const {
    int64_t wanted = (15 + N) / N, worthwhile = C * P / (2 * GRAIN);
    return std::clamp<int64_t>(std::min(wanted, worthwhile), 1, P);
  }
  // Whether rows are wider than a tile, in an activation of that many bytes or more: memory is then read in the order
  // in which it lies. What caches keep is gone through tile by tile, which is less work.
  bool in_order(int64_t bytes_a_value, int64_t bytes) const { return C > 4 * W && values() * bytes_a_value >= bytes; }
  int64_t first_row(int64_t piece, int64_t pieces) const { return piece * P / pieces; }
};

// An activation's images. Those of x may lie anywhere, each of them is dense.
template <typename T>
struct Images {
  T* data;
  int64_t stride;
  T* operator[](int64_t n) const { return data + n * stride; }
};

// Statistics and other vectors, one row of C channels for each image.
struct Vectors {
  float* data;
  int64_t C;
  float* operator[](int64_t n) const { return data + n * C; }
};

// How many values come next after so many: twice as many together, but not too many to be summed one by one.
inline int64_t next_part(int64_t before, int64_t length, int64_t first, int64_t most) {
  int64_t part = before ? std::min(before, most) : (length <= 2 * first ? length : first);
  return std::min(part, length - before);
}

// --------------------------------------------------------------------------------------------------------- pointwise

// Whether an output goes past the caches, which do not keep `live` activations of that size: in lines of `length`
// values without gaps, which begin where vectors may.
template <typename T>
bool streams(const Shape& shape, const T* y, int64_t length, int64_t live) {
  bool aligned = reinterpret_cast<uintptr_t>(y) % sizeof(Floats) == 0 && length % W == 0;
  return std::is_same_v<T, float> && aligned && live * shape.values() * int64_t(sizeof(T)) >= 2 * LARGE;
}

template <typename T, typename Value, typename Count>
inline void put(T* y, const Value& value, Count count, bool past_the_caches) {
  if constexpr (std::is_same_v<T, float> && !std::is_same_v<Count, Part>) {
    if (past_the_caches) return stream(y, value);
  }
  store(y, value, count);
}

}  // namespace normshift
