// The four passes of normshift.backends over float32, bfloat16 and float16 activations on a CPU.
//
// An activation is N maps of C channels and P positions, in one of two layouts: planes (a channel's P positions lie
// together) or rows (a position's C channels do: channels-last). All arithmetic is float32, two vectors at a time. How
// work is cut depends on the shape alone and never on the number of threads, so that this number changes no digit.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

namespace {

using at::Tensor;
using Vec = at::vec::Vectorized<float>;
constexpr int64_t W = Vec::size();
constexpr int64_t STEP = 2 * W;  // what is loaded at a time: as many bfloat16 as fill a vector
constexpr int64_t CHUNK = 96 * 1024;  // bytes that stay in a core's second-level cache between two passes
constexpr int64_t GRAIN = 32 * 1024;  // values that are worth a thread

// ---------------------------------------------------------------------------------------------- two vectors at a time

struct Pair {
  Vec a{0.f}, b{0.f};
  Pair() = default;
  Pair(Vec first, Vec second) : a(first), b(second) {}
  explicit Pair(float value) : a(value), b(value) {}
};

inline Pair operator+(const Pair& x, const Pair& y) { return {x.a + y.a, x.b + y.b}; }
inline Pair operator-(const Pair& x, const Pair& y) { return {x.a - y.a, x.b - y.b}; }
inline Pair operator*(const Pair& x, const Pair& y) { return {x.a * y.a, x.b * y.b}; }
inline Pair fma(const Pair& x, const Pair& y, const Pair& z) {
  return {at::vec::fmadd(x.a, y.a, z.a), at::vec::fmadd(x.b, y.b, z.b)};
}

// The first `count` values of x, and zeros.
inline Pair first(const Pair& x, int64_t count) {
  return {Vec::set(Vec(0.f), x.a, std::min(count, W)), Vec::set(Vec(0.f), x.b, std::max<int64_t>(count - W, 0))};
}

inline float sum(const Pair& x) {
  return at::vec::vec_reduce_all<float>([](const Vec& a, const Vec& b) { return a + b; }, x.a + x.b);
}

inline Pair read(const float* x) { return {Vec::loadu(x), Vec::loadu(x + W)}; }
inline Pair read(const float* x, int64_t count) {
  return count > W ? Pair(Vec::loadu(x), Vec::loadu(x + W, count - W)) : Pair(Vec::loadu(x, count), Vec(0.f));
}
inline void write(float* x, const Pair& value) {
  value.a.store(x);
  value.b.store(x + W);
}
inline void write(float* x, const Pair& value, int64_t count) {
  value.a.store(x, std::min(count, W));
  if (count > W) value.b.store(x + W, count - W);
}

template <typename T>
inline Pair widened(const at::vec::Vectorized<T>& x) {
  auto [a, b] = at::vec::convert_to_float<T>(x);
  return {a, b};
}
template <typename T>
inline Pair read(const T* x) { return widened<T>(at::vec::Vectorized<T>::loadu(x)); }
template <typename T>
inline Pair read(const T* x, int64_t count) { return widened<T>(at::vec::Vectorized<T>::loadu(x, count)); }
template <typename T>
inline void write(T* x, const Pair& value) { at::vec::convert_from_float<T>(value.a, value.b).store(x); }
template <typename T>
inline void write(T* x, const Pair& value, int64_t count) {
  at::vec::convert_from_float<T>(value.a, value.b).store(x, count);
}

// f(position, how many) for every STEP of `length` values, then for what is left.
template <typename F>
inline void steps(int64_t length, const F& f) {
  int64_t i = 0;
  for (; i + STEP <= length; i += STEP) f(i, STEP);
  if (i < length) f(i, length - i);
}

template <typename T>
inline Pair read_some(const T* x, int64_t count) { return count == STEP ? read(x) : read(x, count); }
template <typename T>
inline void write_some(T* x, const Pair& value, int64_t count) {
  if (count == STEP) write(x, value);
  else write(x, value, count);
}

// Values on their way to memory, past the caches where an activation is larger than those: a cache would first read
// what is about to be overwritten.
inline void stream(float* x, const Vec& value) {
#if defined(CPU_CAPABILITY_AVX512)
  _mm512_stream_ps(x, value);
#elif defined(CPU_CAPABILITY_AVX2)
  _mm256_stream_ps(x, value);
#else
  value.store(x);
#endif
}

template <typename T>
struct Writer {
  static constexpr int64_t LARGE = 8 * 1024 * 1024;  // bytes
  bool streams;

  // To `values` values at y, in lines of `length` that lie without gaps.
  Writer(const T* y, int64_t values, int64_t length) {
    bool aligned = reinterpret_cast<uintptr_t>(y) % sizeof(Vec) == 0 && length % W == 0;
    streams = std::is_same_v<T, float> && aligned && values * int64_t(sizeof(T)) >= LARGE;
  }
  void operator()(T* y, const Pair& value, int64_t count) const {
    if constexpr (std::is_same_v<T, float>) {
      if (streams && count == STEP) {
        stream(y, value.a);
        stream(y + W, value.b);
        return;
      }
    }
    write_some(y, value, count);
  }
};

// Before other threads read what this one has streamed.
inline void fence() {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  _mm_sfence();
#endif
}

// ------------------------------------------------------------------------------------------------------------ layouts

struct Map {
  int64_t N, C, P;
  bool rows;  // channels-last

  explicit Map(const Tensor& x) : N(x.size(0)), C(x.size(1)), P(1), rows(false) {
    for (int64_t axis = 2; axis < x.dim(); ++axis) P *= x.size(axis);
    rows = !dense(x, false);
    TORCH_CHECK(!rows || dense(x, true), "normshift: neither planes nor rows");
  }

  // Whether all but the batch axis lies densely, channels first or last.
  static bool dense(const Tensor& x, bool channels_last) {
    int64_t expected = 1;
    auto next = [&](int64_t axis) {
      bool fits = x.size(axis) == 1 || x.stride(axis) == expected;
      expected *= x.size(axis);
      return fits;
    };
    bool fits = !channels_last || next(1);
    for (int64_t axis = x.dim() - 1; axis > 1; --axis) fits = next(axis) && fits;
    return (channels_last || next(1)) && fits;
  }

  int64_t padded() const { return (C + STEP - 1) / STEP * STEP; }
  int64_t planes_a_task() const { return std::max<int64_t>(1, GRAIN / P); }
  // Rows that a pass goes over before it goes over them again; not too many to be summed one by one.
  int64_t rows_a_chunk(int64_t bytes) const { return std::clamp<int64_t>(CHUNK / (C * bytes), 1, 1024); }
  // Into how many pieces the rows of a map are cut: enough for a dozen cores, where the maps alone are not.
  int64_t pieces() const {
    int64_t wanted = (15 + N) / N, worthwhile = C * P / (4 * GRAIN);
    return std::clamp<int64_t>(std::min(wanted, worthwhile), 1, P);
  }
};

// f(n, c, index of the plane) for every plane.
template <typename F>
void each_plane(const Map& map, const F& f) {
  at::parallel_for(0, map.N * map.C, map.planes_a_task(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i / map.C, i % map.C, i);
    fence();
  });
}

// f(n, first row, last row + 1, index of the piece) for every piece of rows of every map.
template <typename F>
void each_piece(const Map& map, int64_t pieces, const F& f) {
  int64_t grain = std::max<int64_t>(1, GRAIN * pieces / (map.C * map.P));
  at::parallel_for(0, map.N * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t n = i / pieces, k = i % pieces;
      f(n, k * map.P / pieces, (k + 1) * map.P / pieces, i);
    }
    fence();
  });
}

// f(first row, how many) for short rows four at a time, a constant, and for others one by one: what is kept for a channel
// is then read, and written, once for four rows. Long rows would be four streams from memory.
template <typename F>
void row_tiles(int64_t begin, int64_t end, int64_t C, const F& f) {
  int64_t row = begin;
  for (; C <= 128 && row + 4 <= end; row += 4) f(row, std::integral_constant<int, 4>{});
  for (; row < end; ++row) f(row, std::integral_constant<int, 1>{});
}

// ------------------------------------------------------------------------------------------------------------ moments

struct Spread {
  float mean = 0, sum = 0;  // the mean, and the sum of squares around it
  int64_t count = 0;
};

// Two sets' moments in one (Chan, Golub and LeVeque 1979).
inline Spread merged(const Spread& x, const Spread& y) {
  int64_t count = x.count + y.count;
  float share = float(y.count) / float(count), apart = y.mean - x.mean;
  return {x.mean + share * apart, x.sum + y.sum + apart * apart * share * float(x.count), count};
}

template <typename T>
Spread spread_of(const T* x, int64_t length) {
  Pair total;
  steps(length, [&](int64_t i, int64_t count) { total = total + read_some(x + i, count); });
  float mean = sum(total) / float(length);
  Pair centre(mean), squares;
  steps(length, [&](int64_t i, int64_t count) {
    Pair apart = read_some(x + i, count) - centre;
    if (count < STEP) apart = first(apart, count);
    squares = fma(apart, apart, squares);
  });
  return {mean, sum(squares), length};
}

template <typename T>
void plane_moments(const Map& map, const T* x, int64_t stride, float* mean, float* var) {
  constexpr int64_t chunk = CHUNK / sizeof(T);
  each_plane(map, [&](int64_t n, int64_t c, int64_t i) {
    const T* plane = x + n * stride + c * map.P;
    Spread all = spread_of(plane, std::min(chunk, map.P));
    for (int64_t at = chunk; at < map.P; at += chunk) {
      all = merged(all, spread_of(plane + at, std::min(chunk, map.P - at)));
    }
    mean[i] = all.mean;
    var[i] = all.sum / float(map.P);
  });
}

// Means and sums of squares of `rows` rows, merged into those of `before` rows, channel by channel.
inline void merge_rows(
    const float* more_mean, const float* more_squares, int64_t rows, int64_t before, int64_t padded, float* mean,
    float* squares) {
  if (!before) {
    std::copy_n(more_mean, padded, mean);
    std::copy_n(more_squares, padded, squares);
    return;
  }
  Pair part(float(rows) / float(before + rows)), between(float(rows) * float(before) / float(before + rows));
  steps(padded, [&](int64_t c, int64_t) {
    Pair d = read(more_mean + c) - read(mean + c);
    write(squares + c, fma(d * d, between, read(squares + c) + read(more_squares + c)));
    write(mean + c, fma(d, part, read(mean + c)));
  });
}

// Mean and sum of squares of some rows, channel by channel, merged into what was there for `before` rows.
template <typename T>
void add_rows(const T* x, int64_t rows, int64_t C, int64_t before, float* mean, float* squares, float* scratch) {
  int64_t padded = (C + STEP - 1) / STEP * STEP;
  float *here = scratch, *apart = scratch + padded;
  std::fill_n(scratch, 2 * padded, 0.f);
  row_tiles(0, rows, C, [&](int64_t row, auto tile) {
    steps(C, [&](int64_t c, int64_t count) {
      Pair total;
      for (int r = 0; r < tile; ++r) total = total + read_some(x + (row + r) * C + c, count);
      write(here + c, read(here + c) + total);
    });
  });
  Pair share(1.f / float(rows));
  steps(padded, [&](int64_t c, int64_t) { write(here + c, read(here + c) * share); });
  row_tiles(0, rows, C, [&](int64_t row, auto tile) {
    steps(C, [&](int64_t c, int64_t count) {
      Pair centre = read(here + c), total;
      for (int r = 0; r < tile; ++r) {
        Pair d = read_some(x + (row + r) * C + c, count) - centre;
        total = fma(d, d, total);
      }
      write(apart + c, read(apart + c) + total);
    });
  });
  merge_rows(here, apart, rows, before, padded, mean, squares);
}

template <typename T>
void row_moments(const Map& map, const T* x, int64_t stride, float* mean, float* var) {
  int64_t pieces = map.pieces(), padded = map.padded(), chunk = map.rows_a_chunk(sizeof(T));
  std::vector<float> found(map.N * pieces * 2 * padded, 0.f);
  each_piece(map, pieces, [&](int64_t n, int64_t begin, int64_t end, int64_t i) {
    std::vector<float> scratch(2 * padded);
    float *piece_mean = &found[i * 2 * padded], *piece_squares = piece_mean + padded;
    for (int64_t row = begin; row < end; row += chunk) {
      const T* rows = x + n * stride + row * map.C;
      add_rows(rows, std::min(chunk, end - row), map.C, row - begin, piece_mean, piece_squares, scratch.data());
    }
  });
  at::parallel_for(0, map.N, std::max<int64_t>(1, GRAIN / (map.C * pieces)), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float *all_mean = &found[n * pieces * 2 * padded], *all_squares = all_mean + padded;
      for (int64_t k = 1; k < pieces; ++k) {
        const float *piece_mean = all_mean + k * 2 * padded, *piece_squares = piece_mean + padded;
        int64_t before = k * map.P / pieces, rows = (k + 1) * map.P / pieces - before;
        merge_rows(piece_mean, piece_squares, rows, before, padded, all_mean, all_squares);
      }
      std::copy_n(all_mean, map.C, mean + n * map.C);
      for (int64_t c = 0; c < map.C; ++c) var[n * map.C + c] = all_squares[c] / float(map.P);
    }
  });
}

// --------------------------------------------------------------------------------------------------------- reductions

template <typename T>
void plane_reductions(
    const Map& map, const T* dy, int64_t dy_stride, const T* x, int64_t x_stride, const float* mean, float* dshift,
    float* dscale) {
  each_plane(map, [&](int64_t n, int64_t c, int64_t i) {
    const T *dys = dy + n * dy_stride + c * map.P, *xs = x + n * x_stride + c * map.P;
    Pair centre(mean[i]), plain, weighted;
    steps(map.P, [&](int64_t p, int64_t count) {  // beyond the end dy is 0, and so is the product
      Pair d = read_some(dys + p, count);
      plain = plain + d;
      weighted = fma(d, read_some(xs + p, count) - centre, weighted);
    });
    dshift[i] = sum(plain);
    dscale[i] = sum(weighted);
  });
}

template <typename T>
void row_reductions(
    const Map& map, const T* dy, int64_t dy_stride, const T* x, int64_t x_stride, const float* mean, float* dshift,
    float* dscale) {
  int64_t C = map.C, pieces = map.pieces(), padded = map.padded(), chunk = map.rows_a_chunk(2 * sizeof(T));
  std::vector<float> found(map.N * pieces * 2 * padded, 0.f);
  each_piece(map, pieces, [&](int64_t n, int64_t begin, int64_t end, int64_t i) {
    std::vector<float> scratch(3 * padded, 0.f);
    float *centre = scratch.data(), *sums = centre + padded, *totals = &found[i * 2 * padded];
    std::copy_n(mean + n * C, C, centre);
    for (int64_t start = begin; start < end; start += chunk) {  // sums of chunks, then of these: fewer roundings
      std::fill_n(sums, 2 * padded, 0.f);
      row_tiles(start, std::min(start + chunk, end), C, [&](int64_t row, auto tile) {
        const T *dys = dy + n * dy_stride + row * C, *xs = x + n * x_stride + row * C;
        steps(C, [&](int64_t c, int64_t count) {
          Pair middle = read(centre + c), plain, weighted;
          for (int r = 0; r < tile; ++r) {
            Pair d = read_some(dys + r * C + c, count);
            plain = plain + d;
            weighted = fma(d, read_some(xs + r * C + c, count) - middle, weighted);
          }
          write(sums + c, read(sums + c) + plain);
          write(sums + padded + c, read(sums + padded + c) + weighted);
        });
      });
      steps(2 * padded, [&](int64_t c, int64_t) { write(totals + c, read(totals + c) + read(sums + c)); });
    }
  });
  at::parallel_for(0, map.N, std::max<int64_t>(1, GRAIN / (C * pieces)), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* totals = &found[n * pieces * 2 * padded];
      for (int64_t k = 1; k < pieces; ++k) {
        steps(2 * padded, [&](int64_t c, int64_t) {
          write(totals + c, read(totals + c) + read(totals + k * 2 * padded + c));
        });
      }
      std::copy_n(totals, C, dshift + n * C);
      std::copy_n(totals + padded, C, dscale + n * C);
    }
  });
}

// ---------------------------------------------------------------------------------------------------------- pointwise

template <typename T>
void planes_scaled(
    const Map& map, const T* x, int64_t x_stride, const float* mean, const float* scale, const float* shift, T* y,
    int64_t y_stride) {
  Writer<T> put(y, map.N * map.C * map.P, map.P);
  each_plane(map, [&](int64_t n, int64_t c, int64_t i) {
    const T* xs = x + n * x_stride + c * map.P;
    T* ys = y + n * y_stride + c * map.P;
    Pair centre(mean[i]), factor(scale[i]), offset(shift[i]);
    steps(map.P, [&](int64_t p, int64_t count) {
      put(ys + p, fma(read_some(xs + p, count) - centre, factor, offset), count);
    });
  });
}

template <typename T>
void rows_scaled(
    const Map& map, const T* x, int64_t x_stride, const float* mean, const float* scale, const float* shift, T* y,
    int64_t y_stride) {
  int64_t C = map.C;
  Writer<T> put(y, map.N * C * map.P, C);
  each_piece(map, map.pieces(), [&](int64_t n, int64_t begin, int64_t end, int64_t) {
    const float *centre = mean + n * C, *factor = scale + n * C, *offset = shift + n * C;
    for (int64_t row = begin; row < end; ++row) {
      const T* xs = x + n * x_stride + row * C;
      T* ys = y + n * y_stride + row * C;
      steps(C, [&](int64_t c, int64_t count) {
        Pair apart = read_some(xs + c, count) - read_some(centre + c, count);
        put(ys + c, fma(apart, read_some(factor + c, count), read_some(offset + c, count)), count);
      });
    }
  });
}

template <typename T>
void plane_gradient(
    const Map& map, const T* dy, int64_t dy_stride, const T* x, int64_t x_stride, const float* mean,
    const float* scale, const float* slope, const float* offset, T* dx, int64_t dx_stride) {
  Writer<T> put(dx, map.N * map.C * map.P, map.P);
  each_plane(map, [&](int64_t n, int64_t c, int64_t i) {
    const T *dys = dy + n * dy_stride + c * map.P, *xs = x + n * x_stride + c * map.P;
    T* dxs = dx + n * dx_stride + c * map.P;
    Pair centre(mean[i]), factor(scale[i]), tilt(slope[i]), rest(offset[i]);
    steps(map.P, [&](int64_t p, int64_t count) {
      Pair through = fma(read_some(xs + p, count) - centre, tilt, rest);
      put(dxs + p, fma(read_some(dys + p, count), factor, through), count);
    });
  });
}

template <typename T>
void row_gradient(
    const Map& map, const T* dy, int64_t dy_stride, const T* x, int64_t x_stride, const float* mean,
    const float* scale, const float* slope, const float* offset, T* dx, int64_t dx_stride) {
  int64_t C = map.C;
  Writer<T> put(dx, map.N * C * map.P, C);
  each_piece(map, map.pieces(), [&](int64_t n, int64_t begin, int64_t end, int64_t) {
    const float *centre = mean + n * C, *factor = scale + n * C, *tilt = slope + n * C, *rest = offset + n * C;
    for (int64_t row = begin; row < end; ++row) {
      const T *dys = dy + n * dy_stride + row * C, *xs = x + n * x_stride + row * C;
      T* dxs = dx + n * dx_stride + row * C;
      steps(C, [&](int64_t c, int64_t count) {
        Pair apart = read_some(xs + c, count) - read_some(centre + c, count);
        Pair through = fma(apart, read_some(tilt + c, count), read_some(rest + c, count));
        put(dxs + c, fma(read_some(dys + c, count), read_some(factor + c, count), through), count);
      });
    }
  });
}

// ---------------------------------------------------------------------------------------------------------- operators

Tensor vector_of(const Map& map, const Tensor& x) { return at::empty({map.N, map.C}, x.options().dtype(at::kFloat)); }

// f(a null pointer of the activation's type).
template <typename F>
void by_type(const Tensor& x, const F& f) {
  switch (x.scalar_type()) {
    case at::kFloat: return f(static_cast<float*>(nullptr));
    case at::kBFloat16: return f(static_cast<at::BFloat16*>(nullptr));
    case at::kHalf: return f(static_cast<at::Half*>(nullptr));
    default: TORCH_CHECK(false, "normshift: no compiled kernel for ", x.scalar_type());
  }
}

const float* floats(const Tensor& vector, const Map& map) {
  bool fits = vector.numel() == map.N * map.C && vector.is_contiguous() && vector.scalar_type() == at::kFloat;
  TORCH_CHECK(fits, "normshift: kernels take contiguous float32 vectors of a map's N x C values");
  return vector.const_data_ptr<float>();
}

// An activation to be written, laid out as x.
Tensor output(const Tensor& x, const Map& map) {
  Tensor y = at::empty_like(x);
  if (Map::dense(y, map.rows)) return y;
  std::vector<int64_t> strides(x.strides().begin(), x.strides().end());  // x's maps are dense, its batch is not
  strides[0] = map.C * map.P;
  return at::empty_strided(x.sizes(), strides, x.options());
}

// The gradient as planes or rows, whatever its strides were.
Tensor like(const Tensor& dy, const Tensor& x, const Map& map) {
  TORCH_CHECK(dy.sizes() == x.sizes() && dy.scalar_type() == x.scalar_type(), "normshift: dy is not like x");
  if (Map::dense(dy, map.rows)) return dy;
  Tensor same = output(x, map);
  same.copy_(dy);
  return same;
}

std::tuple<Tensor, Tensor> moments(const Tensor& x) {
  Map map(x);
  Tensor mean = vector_of(map, x), var = vector_of(map, x);
  float *means = mean.data_ptr<float>(), *vars = var.data_ptr<float>();
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto* kernel = map.rows ? row_moments<T> : plane_moments<T>;
    kernel(map, x.const_data_ptr<T>(), x.stride(0), means, vars);
  });
  return {mean, var};
}

Tensor scale_shift(const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& shift) {
  Map map(x);
  Tensor y = output(x, map);
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto* kernel = map.rows ? rows_scaled<T> : planes_scaled<T>;
    kernel(
        map, x.const_data_ptr<T>(), x.stride(0), floats(mean, map), floats(scale, map), floats(shift, map),
        y.data_ptr<T>(), y.stride(0));
  });
  return y;
}

std::tuple<Tensor, Tensor> reductions(const Tensor& dy, const Tensor& x, const Tensor& mean) {
  Map map(x);
  Tensor same = like(dy, x, map), dshift = vector_of(map, x), dscale = vector_of(map, x);
  float *shifts = dshift.data_ptr<float>(), *scales = dscale.data_ptr<float>();
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto* kernel = map.rows ? row_reductions<T> : plane_reductions<T>;
    kernel(
        map, same.const_data_ptr<T>(), same.stride(0), x.const_data_ptr<T>(), x.stride(0), floats(mean, map), shifts,
        scales);
  });
  return {dshift, dscale};
}

Tensor input_gradient(
    const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& slope,
    const Tensor& offset) {
  Map map(x);
  Tensor same = like(dy, x, map), dx = output(x, map);
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto* kernel = map.rows ? row_gradient<T> : plane_gradient<T>;
    kernel(
        map, same.const_data_ptr<T>(), same.stride(0), x.const_data_ptr<T>(), x.stride(0), floats(mean, map),
        floats(scale, map), floats(slope, map), floats(offset, map), dx.data_ptr<T>(), dx.stride(0));
  });
  return dx;
}

}  // namespace

TORCH_LIBRARY(normshift_cpu, library) {
  library.def("moments(Tensor x) -> (Tensor, Tensor)");
  library.def("scale_shift(Tensor x, Tensor mean, Tensor scale, Tensor shift) -> Tensor");
  library.def("reductions(Tensor dy, Tensor x, Tensor mean) -> (Tensor, Tensor)");
  library.def("input_gradient(Tensor dy, Tensor x, Tensor mean, Tensor scale, Tensor slope, Tensor offset) -> Tensor");
}

TORCH_LIBRARY_IMPL(normshift_cpu, CPU, library) {
  library.impl("moments", moments);
  library.impl("scale_shift", scale_shift);
  library.impl("reductions", reductions);
  library.impl("input_gradient", input_gradient);
}
