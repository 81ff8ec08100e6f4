// The four passes of normshift.backends over float32, bfloat16 and float16 activations.
//
// An activation is N images of C channels and P positions, in one of two layouts: planes (a channel's P positions lie
// together) or rows (a position's C channels do: channels-last). All arithmetic is float32. How sums are cut depends on
// the shape alone, so that the number of threads changes no digit. Each pass is a function on one plane, or on some rows
// of one image, and a function of the same name on an activation, which runs that in threads.

#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace normshift {

constexpr int64_t CHUNK = 96 * 1024;  // bytes that stay in a core's second-level cache between two visits
constexpr int64_t GRAIN = 64 * 1024;  // values that are worth a thread
constexpr int64_t FEW = 6;  // vectors: sums of planes that are smaller take longer than the planes
constexpr int64_t LARGE = 8 * 1024 * 1024;  // bytes of an activation that no cache keeps

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
  // Whether rows are wider than a tile, in an activation of that many bytes or more: memory is then read in the order in
  // which it lies. What caches keep is gone through tile by tile, which is less work.
  bool in_order(int64_t bytes_a_value, int64_t bytes) const { return C > 4 * W && values() * bytes_a_value >= bytes; }
  int64_t first_row(int64_t piece, int64_t pieces) const { return piece * P / pieces; }
};

// Rows that are visited at once before they are visited again; not too many to be summed one by one.
inline int64_t rows_a_chunk(int64_t bytes_a_row) { return std::clamp<int64_t>(CHUNK / bytes_a_row, 1, 1024); }

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

// ------------------------------------------------------------------------------------------------------------ columns

// Columns that stay in registers while rows go by: `size` values, each of two vectors, one or a part. Where these are few,
// sums go on in `sums` of each: one would wait for itself.
template <typename Values, int size_>
struct Tile {
  using Value = std::conditional_t<std::is_same_v<Values, Both>, Pair, Floats>;
  static constexpr int size = size_, width = sizeof(Value) / sizeof(float), sums = 4 * W / (size * width);
};

// f(first column, Tile, Both, Full or Part) for tiles of `width` columns, the widest first.
template <typename F>
inline void tiles(int64_t width, const F& f) {
  int64_t c = 0;
  for (; c + 4 * W <= width; c += 4 * W) f(c, Tile<Both, 2>{}, Both{});
  if (c + 2 * W <= width) f(c, Tile<Both, 1>{}, Both{}), c += 2 * W;
  if (c + W <= width) f(c, Tile<Full, 1>{}, Full{}), c += W;
  if (c < width) f(c, Tile<Part, 1>{}, Part{width - c});
}

// f(row, k) for every row; k < U changes from row to row where there are many.
template <int U, typename F>
inline void each_row(int64_t rows, const F& f) {
  int64_t row = 0;
  for (; row + U <= rows; row += U)
#pragma GCC unroll 4
    for (int k = 0; k < U; ++k) f(row + k, k);
  for (; row < rows; ++row) f(row, 0);
}

// ------------------------------------------------------------------------------------------------------------ moments

struct Spread {
  float mean = 0, squares = 0;  // the mean, and the sum of squares around it
  int64_t count = 0;
};

// Two sets' moments in one (Chan, Golub and LeVeque 1979).
inline Spread merged(const Spread& x, const Spread& y) {
  int64_t count = x.count + y.count;
  float share = float(y.count) / float(count), apart = y.mean - x.mean;
  return {x.mean + share * apart, x.squares + y.squares + apart * apart * share * float(x.count), count};
}

// In one visit, from the distances to a mean that is nearly theirs: that of the values themselves, whose last bits this
// corrects, or of at least as many values before. It then loses no more than the last bits of the variance of all: where
// the means differ, that variance is as large as what is subtracted here.
template <typename T>
inline Spread spread_around(const T* x, int64_t length, float near) {
  Floats centre = all(near);
  Pair total[2], squares[2];
  each_pair<2>(length, [&](int64_t i, auto count, int k) {
    auto apart = kept(load(x + i, count) - centre, count);
    add(total[k], apart);
    add(squares[k], apart * apart);
  });
  float shift = sum(total[0] + total[1]), mean = shift / float(length);
  return {near + mean, std::max(sum(squares[0] + squares[1]) - shift * mean, 0.f), length};
}

template <typename T>
inline float mean_of(const T* x, int64_t length) {
  Pair total[2];
  each_pair<2>(length, [&](int64_t i, auto count, int k) { add(total[k], load(x + i, count)); });
  return sum(total[0] + total[1]) / float(length);
}

// How many values come next after so many: twice as many together, but not too many to be summed one by one.
inline int64_t next_part(int64_t before, int64_t length, int64_t first, int64_t most) {
  int64_t part = before ? std::min(before, most) : (length <= 2 * first ? length : first);
  return std::min(part, length - before);
}

template <typename T>
inline void moments(const T* plane, int64_t P, float& mean, float& var) {
  int64_t part = next_part(0, P, 256, 16384);
  Spread whole = spread_around(plane, part, mean_of(plane, part));
  while (whole.count < P) {
    part = next_part(whole.count, P, 256, 16384);
    whole = merged(whole, spread_around(plane + whole.count, part, whole.mean));
  }
  mean = whole.mean;
  var = whole.squares / float(P);
}

// f(std::integral_constant of how many vectors hold P values), for FEW at most.
template <int V = FEW, typename F>
inline void with_vectors(int64_t P, const F& f) {
  if constexpr (V > 1) {
    if (P <= (V - 1) * W) return with_vectors<V - 1>(P, f);
  }
  f(std::integral_constant<int, V>{});
}

// The sum of f(position, Full or Part) over the V vectors that hold P values.
template <int V, typename F>
inline Floats sum_of(int64_t P, const F& f) {
  Floats total{};
#pragma GCC unroll 8
  for (int v = 0; v < V - 1; ++v) total += f(v * W, Full{});
  return total + f((V - 1) * W, Part{P - (V - 1) * W});
}

// W planes at most, each of V vectors: their sums are taken together.
template <int V, typename T>
inline void moments_of_few(const T* planes, int64_t count, int64_t P, float* mean, float* var) {
  Floats totals[W] = {}, squares[W] = {};
  Part lanes{count};
  for (int64_t i = 0; i < count; ++i)
    totals[i] = sum_of<V>(P, [&](int64_t p, auto part) { return load(planes + i * P + p, part); });
  store(mean, sums(totals) / float(P), lanes);
  for (int64_t i = 0; i < W; ++i) totals[i] = Floats{};
  for (int64_t i = 0; i < count; ++i) {
    Floats centre = all(mean[i]), square{};
    totals[i] = sum_of<V>(P, [&](int64_t p, auto part) {
      Floats apart = kept(load(planes + i * P + p, part) - centre, part);
      square += apart * apart;
      return apart;
    });
    squares[i] = square;
  }
  Floats shift = sums(totals), apart = shift / float(P);
  store(mean, load(mean, lanes) + apart, lanes);
  store(var, not_negative(sums(squares) - shift * apart) / float(P), lanes);
}

// Of planes that lie one after another.
template <typename T>
inline void moments_of_planes(const T* planes, int64_t count, int64_t P, float* mean, float* var) {
  if (P <= FEW * W) {
    return with_vectors(P, [&](auto vectors) {
      for (int64_t i = 0; i < count; i += W)
        moments_of_few<vectors>(planes + i * P, std::min<int64_t>(W, count - i), P, mean + i, var + i);
    });
  }
  for (int64_t i = 0; i < count; ++i) moments(planes + i * P, P, mean[i], var[i]);
}

// Means of some rows of `width` columns, `step` apart.
template <typename T>
inline void means_of_rows(const T* x, int64_t rows, int64_t step, int64_t width, float* mean) {
  tiles(width, [&](int64_t column, auto tile, auto count) {
    using Tile = decltype(tile);
    typename Tile::Value total[Tile::sums][Tile::size] = {};
    const T* xs = x + column;
    each_row<Tile::sums>(rows, [&](int64_t row, int k) {
      for (int v = 0; v < Tile::size; ++v)
        total[k][v] = total[k][v] + load(xs + row * step + v * Tile::width, count);
    });
    for (int v = 0; v < Tile::size; ++v) {
      for (int k = 1; k < Tile::sums; ++k) total[0][v] = total[0][v] + total[k][v];
      store_for<T>(mean + column + v * Tile::width, total[0][v] / float(rows), count);
    }
  });
}

// Means and sums of squares of some rows, merged into those of `before` rows, as in `spread_around`. Where there are none
// before, `mean` is nearly theirs, and the sums are 0.
template <typename T>
inline void add_moments(
    const T* x, int64_t rows, int64_t step, int64_t width, int64_t before, float* mean, float* squares) {
  float part = float(rows) / float(before + rows), between = part * float(before);
  tiles(width, [&](int64_t column, auto tile, auto count) {
    using Tile = decltype(tile);
    typename Tile::Value total[Tile::sums][Tile::size] = {}, square[Tile::sums][Tile::size] = {}, centre[Tile::size];
    const T* xs = x + column;
    for (int v = 0; v < Tile::size; ++v) centre[v] = load_for<T>(mean + column + v * Tile::width, count);
    each_row<Tile::sums>(rows, [&](int64_t row, int k) {
      for (int v = 0; v < Tile::size; ++v) {
        auto apart = load(xs + row * step + v * Tile::width, count) - centre[v];
        total[k][v] = total[k][v] + apart;
        square[k][v] = square[k][v] + apart * apart;
      }
    });
    for (int v = 0; v < Tile::size; ++v) {
      for (int k = 1; k < Tile::sums; ++k)
        total[0][v] = total[0][v] + total[k][v], square[0][v] = square[0][v] + square[k][v];
      float *means = mean + column + v * Tile::width, *sums = squares + column + v * Tile::width;
      auto shift = total[0][v] / float(rows), own = not_negative(square[0][v] - total[0][v] * shift);
      store_for<T>(sums, load_for<T>(sums, count) + own + shift * shift * between, count);
      store_for<T>(means, centre[v] + shift * part, count);
    }
  });
}

// Of rows begin..end of an image.
template <typename T>
inline void moments_of_rows(
    const T* image, int64_t begin, int64_t end, int64_t step, int64_t width, float* mean, float* squares) {
  int64_t rows = end - begin, done = next_part(0, rows, 32, 1024);
  means_of_rows(image + begin * step, done, step, width, mean);
  std::fill_n(squares, width, 0.f);
  add_moments(image + begin * step, done, step, width, 0, mean, squares);
  while (done < rows) {
    int64_t part = next_part(done, rows, 32, 1024);
    add_moments(image + (begin + done) * step, part, step, width, done, mean, squares);
    done += part;
  }
}

// Merges the moments of all pieces of an image, 2 x `width` values each, into its mean and variance.
inline void merge_pieces(const Shape& shape, int64_t pieces, int64_t width, float* found, float* mean, float* var) {
  float *means = found, *squares = found + width;
  for (int64_t k = 1; k < pieces; ++k) {
    const float *more_means = found + k * 2 * width, *more_squares = more_means + width;
    int64_t before = shape.first_row(k, pieces), rows = shape.first_row(k + 1, pieces) - before;
    float part = float(rows) / float(before + rows), between = part * float(before);
    for (int64_t c = 0; c < width; ++c) {
      float apart = more_means[c] - means[c];
      squares[c] += more_squares[c] + apart * apart * between;
      means[c] += apart * part;
    }
  }
  std::copy_n(means, width, mean);
  for (int64_t c = 0; c < width; ++c) var[c] = squares[c] / float(shape.P);
}

// Of the columns first..last of an image of rows.
template <typename T>
void moments_of_image(const Shape& shape, const T* image, int64_t first, int64_t last, float* mean, float* var) {
  int64_t pieces = shape.pieces(), width = last - first;
  std::vector<float> found(pieces * 2 * width);
  for (int64_t k = 0; k < pieces; ++k) {
    float* here = &found[k * 2 * width];
    moments_of_rows(
        image + first, shape.first_row(k, pieces), shape.first_row(k + 1, pieces), shape.C, width, here, here + width);
  }
  merge_pieces(shape, pieces, width, found.data(), mean + first, var + first);
}

// f(n, first channel, how many) for all planes of the channels first..last, some of an image at a time.
template <typename F>
void each_planes(const Shape& shape, int64_t first, int64_t last, const F& f) {
  int64_t width = last - first;
  parallel(0, shape.N * width, shape.planes_a_task(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin, some; i < end; i += some) {
      int64_t n = i / width, c = i % width;
      some = std::min(width - c, end - i);
      f(n, first + c, some);
    }
    fence();
  });
}

// f(n, first row, last row + 1, index of the piece) for every piece of every image.
template <typename F>
void each_piece(const Shape& shape, const F& f) {
  int64_t pieces = shape.pieces(), grain = std::max<int64_t>(1, GRAIN * pieces / (shape.C * shape.P));
  parallel(0, shape.N * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t n = i / pieces, k = i % pieces;
      f(n, shape.first_row(k, pieces), shape.first_row(k + 1, pieces), i);
    }
    fence();
  });
}

// Of the channels first..last.
template <typename T>
void moments(const Shape& shape, Images<const T> x, int64_t first, int64_t last, Vectors mean, Vectors var) {
  int64_t width = last - first, pieces = shape.pieces();
  if (!shape.rows) {
    return each_planes(shape, first, last, [&](int64_t n, int64_t c, int64_t count) {
      moments_of_planes(x[n] + c * shape.P, count, shape.P, mean[n] + c, var[n] + c);
    });
  }
  if (pieces == 1) {
    return parallel(0, shape.N, shape.images_a_task(), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) moments_of_image(shape, x[n], first, last, mean[n], var[n]);
    });
  }
  std::vector<float> found(shape.N * pieces * 2 * width);
  each_piece(shape, [&](int64_t n, int64_t begin, int64_t end, int64_t i) {
    float* here = &found[i * 2 * width];
    moments_of_rows(x[n] + first, begin, end, shape.C, width, here, here + width);
  });
  for (int64_t n = 0; n < shape.N; ++n)
    merge_pieces(shape, pieces, width, &found[n * pieces * 2 * width], mean[n] + first, var[n] + first);
}

// --------------------------------------------------------------------------------------------------------- reductions

// Sums of dy and of dy * (x - mean). Beyond the end dy is 0, and so is the product.
template <typename T>
inline void reductions(const T* dy, const T* x, int64_t P, float mean, float& dshift, float& dscale) {
  Floats centre = all(mean);
  Pair plain[2], weighted[2];
  each_pair<2>(P, [&](int64_t i, auto count, int k) {
    auto d = load(dy + i, count);
    add(plain[k], d);
    add(weighted[k], d * (load(x + i, count) - centre));
  });
  dshift = sum(plain[0] + plain[1]);
  dscale = sum(weighted[0] + weighted[1]);
}

// W planes at most, each of V vectors.
template <int V, typename T>
inline void reductions_of_few(
    const T* dy, const T* x, int64_t count, int64_t P, const float* mean, float* dshift, float* dscale) {
  Floats plain[W] = {}, weighted[W] = {};
  for (int64_t i = 0; i < count; ++i) {
    Floats centre = all(mean[i]), product{};
    plain[i] = sum_of<V>(P, [&](int64_t p, auto part) {
      Floats d = load(dy + i * P + p, part);
      product += d * (load(x + i * P + p, part) - centre);
      return d;
    });
    weighted[i] = product;
  }
  store(dshift, sums(plain), Part{count});
  store(dscale, sums(weighted), Part{count});
}

// Of planes that lie one after another.
template <typename T>
inline void reductions_of_planes(
    const T* dy, const T* x, int64_t count, int64_t P, const float* mean, float* dshift, float* dscale) {
  if (P <= FEW * W) {
    return with_vectors(P, [&](auto vectors) {
      for (int64_t i = 0; i < count; i += W) {
        int64_t some = std::min<int64_t>(W, count - i);
        reductions_of_few<vectors>(dy + i * P, x + i * P, some, P, mean + i, dshift + i, dscale + i);
      }
    });
  }
  for (int64_t i = 0; i < count; ++i) reductions(dy + i * P, x + i * P, P, mean[i], dshift[i], dscale[i]);
}

// Of some rows, added to `dshift` and `dscale`. Their columns are visited one after another.
template <typename T>
inline void add_reductions(
    const T* dy, const T* x, int64_t rows, int64_t C, const float* mean, float* dshift, float* dscale) {
  tiles(C, [&](int64_t column, auto tile, auto count) {
    using Tile = decltype(tile);
    typename Tile::Value plain[Tile::sums][Tile::size] = {}, weighted[Tile::sums][Tile::size] = {}, centre[Tile::size];
    for (int v = 0; v < Tile::size; ++v) centre[v] = load_for<T>(mean + column + v * Tile::width, count);
    each_row<Tile::sums>(rows, [&](int64_t row, int k) {
      for (int v = 0; v < Tile::size; ++v) {
        int64_t at = row * C + column + v * Tile::width;
        auto d = load(dy + at, count);
        plain[k][v] = plain[k][v] + d;
        weighted[k][v] = weighted[k][v] + d * (load(x + at, count) - centre[v]);
      }
    });
    for (int v = 0; v < Tile::size; ++v) {
      for (int k = 1; k < Tile::sums; ++k)
        plain[0][v] = plain[0][v] + plain[k][v], weighted[0][v] = weighted[0][v] + weighted[k][v];
      float *shifts = dshift + column + v * Tile::width, *scales = dscale + column + v * Tile::width;
      store_for<T>(shifts, load_for<T>(shifts, count) + plain[0][v], count);
      store_for<T>(scales, load_for<T>(scales, count) + weighted[0][v], count);
    }
  });
}

// The same, row after row: more work, but memory is read in the order in which it lies.
template <typename T>
inline void add_reductions_in_order(
    const T* dy, const T* x, int64_t rows, int64_t C, const float* mean, float* dshift, float* dscale) {
  std::vector<float> sums(2 * C);  // first of these rows alone: fewer roundings
  float *shifts = sums.data(), *scales = shifts + C;
  for (int64_t row = 0; row < rows; ++row) {
    const T *dys = dy + row * C, *xs = x + row * C;
    each_vector(C, [&](int64_t c, auto count) {
      Floats d = load(dys + c, count);
      store(scales + c, load(scales + c, count) + d * (load(xs + c, count) - load(mean + c, count)), count);
      store(shifts + c, load(shifts + c, count) + d, count);
    });
  }
  for (int64_t c = 0; c < C; ++c) dshift[c] += shifts[c], dscale[c] += scales[c];
}

template <typename T>
void reductions(
    const Shape& shape, Images<const T> dy, Images<const T> x, Vectors mean, Vectors dshift, Vectors dscale) {
  int64_t C = shape.C, P = shape.P;
  if (!shape.rows) {
    return each_planes(shape, 0, C, [&](int64_t n, int64_t c, int64_t count) {
      reductions_of_planes(dy[n] + c * P, x[n] + c * P, count, P, mean[n] + c, dshift[n] + c, dscale[n] + c);
    });
  }
  int64_t pieces = shape.pieces(), chunk = rows_a_chunk(2 * C * sizeof(T));
  bool in_order = shape.in_order(sizeof(T), LARGE);
  std::vector<float> found(shape.N * pieces * 2 * C);
  each_piece(shape, [&](int64_t n, int64_t begin, int64_t end, int64_t i) {
    for (int64_t row = begin; row < end; row += chunk) {
      int64_t rows = std::min(chunk, end - row);
      auto* add = in_order ? add_reductions_in_order<T> : add_reductions<T>;
      add(dy[n] + row * C, x[n] + row * C, rows, C, mean[n], &found[i * 2 * C], &found[i * 2 * C + C]);
    }
  });
  for (int64_t n = 0; n < shape.N; ++n) {
    float* totals = &found[n * pieces * 2 * C];
    for (int64_t k = 1; k < pieces; ++k)
      for (int64_t c = 0; c < 2 * C; ++c) totals[c] += totals[k * 2 * C + c];
    std::copy_n(totals, C, dshift[n]);
    std::copy_n(totals + C, C, dscale[n]);
  }
}

// --------------------------------------------------------------------------------------------------------- pointwise

// Whether an output goes past the caches, which have the input beside it: lines of `length` values without gaps, which begin where vectors may.
template <typename T>
bool streams(const Shape& shape, const T* y, int64_t length) {
  bool aligned = reinterpret_cast<uintptr_t>(y) % sizeof(Floats) == 0 && length % W == 0;
  return std::is_same_v<T, float> && aligned && shape.values() * int64_t(sizeof(T)) >= LARGE / 2;
}

template <typename T, typename Value, typename Count>
inline void put(T* y, const Value& value, Count count, bool past_the_caches) {
  if constexpr (std::is_same_v<T, float> && !std::is_same_v<Count, Part>) {
    if (past_the_caches) return stream(y, value);
  }
  store(y, value, count);
}

template <typename T>
inline void scale_shift(const T* x, int64_t P, float mean, float scale, float shift, T* y, bool past_the_caches) {
  Floats centre = all(mean), factor = all(scale), offset = all(shift);
  each_pair<1>(P, [&](int64_t i, auto count, int) {
    put(y + i, (load(x + i, count) - centre) * factor + offset, count, past_the_caches);
  });
}

// Rows begin..end of an image.
template <typename T>
inline void scale_shift(
    const Shape& shape, const T* x, int64_t begin, int64_t end, const float* mean, const float* scale,
    const float* shift, T* y, bool past_the_caches) {
  int64_t C = shape.C;
  if (shape.in_order(sizeof(T), LARGE / 2)) {
    for (int64_t row = begin; row < end; ++row) {
      const T* xs = x + row * C;
      T* ys = y + row * C;
      each_vector(C, [&](int64_t c, auto count) {
        Floats apart = load(xs + c, count) - load(mean + c, count);
        put(ys + c, apart * load(scale + c, count) + load(shift + c, count), count, past_the_caches);
      });
    }
    return;
  }
  tiles(C, [&](int64_t column, auto tile, auto count) {
    using Tile = decltype(tile);
    typename Tile::Value centre[Tile::size], factor[Tile::size], offset[Tile::size];
    for (int v = 0; v < Tile::size; ++v) {
      int64_t c = column + v * Tile::width;
      centre[v] = load_for<T>(mean + c, count), factor[v] = load_for<T>(scale + c, count);
      offset[v] = load_for<T>(shift + c, count);
    }
    for (int64_t row = begin * C + column; row < end * C; row += C)
      for (int v = 0; v < Tile::size; ++v) {
        int64_t at = row + v * Tile::width;
        put(y + at, (load(x + at, count) - centre[v]) * factor[v] + offset[v], count, past_the_caches);
      }
  });
}

template <typename T>
void scale_shift(const Shape& shape, Images<const T> x, Vectors mean, Vectors scale, Vectors shift, Images<T> y) {
  int64_t C = shape.C, P = shape.P;
  bool past = streams(shape, y.data, shape.rows ? C : P);
  if (!shape.rows) {
    return each_planes(shape, 0, C, [&](int64_t n, int64_t first, int64_t count) {
      for (int64_t c = first; c < first + count; ++c)
        scale_shift(x[n] + c * P, P, mean[n][c], scale[n][c], shift[n][c], y[n] + c * P, past);
    });
  }
  each_piece(shape, [&](int64_t n, int64_t begin, int64_t end, int64_t) {
    scale_shift(shape, x[n], begin, end, mean[n], scale[n], shift[n], y[n], past);
  });
}

template <typename T>
inline void input_gradient(
    const T* dy, const T* x, int64_t P, float mean, float scale, float slope, float offset, T* dx, bool past_the_caches) {
  Floats centre = all(mean), factor = all(scale), tilt = all(slope), rest = all(offset);
  each_pair<1>(P, [&](int64_t i, auto count, int) {
    auto through = (load(x + i, count) - centre) * tilt + rest;
    put(dx + i, load(dy + i, count) * factor + through, count, past_the_caches);
  });
}

template <typename T>
inline void input_gradient(
    const Shape& shape, const T* dy, const T* x, int64_t begin, int64_t end, const float* mean, const float* scale,
    const float* slope, const float* offset, T* dx, bool past_the_caches) {
  int64_t C = shape.C;
  if (shape.in_order(sizeof(T), LARGE / 2)) {
    for (int64_t row = begin; row < end; ++row) {
      const T *dys = dy + row * C, *xs = x + row * C;
      T* dxs = dx + row * C;
      each_vector(C, [&](int64_t c, auto count) {
        Floats apart = load(xs + c, count) - load(mean + c, count);
        Floats through = apart * load(slope + c, count) + load(offset + c, count);
        put(dxs + c, load(dys + c, count) * load(scale + c, count) + through, count, past_the_caches);
      });
    }
    return;
  }
  tiles(C, [&](int64_t column, auto tile, auto count) {
    using Tile = decltype(tile);
    typename Tile::Value centre[Tile::size], factor[Tile::size], tilt[Tile::size], rest[Tile::size];
    for (int v = 0; v < Tile::size; ++v) {
      int64_t c = column + v * Tile::width;
      centre[v] = load_for<T>(mean + c, count), factor[v] = load_for<T>(scale + c, count);
      tilt[v] = load_for<T>(slope + c, count), rest[v] = load_for<T>(offset + c, count);
    }
    for (int64_t row = begin * C + column; row < end * C; row += C)
      for (int v = 0; v < Tile::size; ++v) {
        int64_t at = row + v * Tile::width;
        auto through = (load(x + at, count) - centre[v]) * tilt[v] + rest[v];
        put(dx + at, load(dy + at, count) * factor[v] + through, count, past_the_caches);
      }
  });
}

template <typename T>
void input_gradient(
    const Shape& shape, Images<const T> dy, Images<const T> x, Vectors mean, Vectors scale, Vectors slope,
    Vectors offset, Images<T> dx) {
  int64_t C = shape.C, P = shape.P;
  bool past = streams(shape, dx.data, shape.rows ? C : P);
  if (!shape.rows) {
    return each_planes(shape, 0, C, [&](int64_t n, int64_t first, int64_t count) {
      for (int64_t c = first; c < first + count; ++c)
        input_gradient(
            dy[n] + c * P, x[n] + c * P, P, mean[n][c], scale[n][c], slope[n][c], offset[n][c], dx[n] + c * P, past);
    });
  }
  each_piece(shape, [&](int64_t n, int64_t begin, int64_t end, int64_t) {
    input_gradient(shape, dy[n], x[n], begin, end, mean[n], scale[n], slope[n], offset[n], dx[n], past);
  });
}

}  // namespace normshift
