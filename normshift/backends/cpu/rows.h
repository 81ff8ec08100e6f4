// The passes over rows: positions whose channels lie one after another (channels-last).

#pragma once

#include <vector>

#include "shape.h"

namespace normshift {

constexpr int64_t CHUNK = 96 * 1024;  // bytes that stay in a core's second-level cache between two visits

// Rows that are visited at once before they are visited again; not too many to be summed one by one.
inline int64_t rows_a_chunk(int64_t bytes_a_row) { return std::clamp<int64_t>(CHUNK / bytes_a_row, 1, 1024); }

// ------------------------------------------------------------------------------------------------------------ columns

// Columns that stay in registers while rows go by: `size` values, each of two vectors, one or a part. Where these are
// few, sums go on in `sums` of each: one would wait for itself.
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

// Means of some rows of `width` columns, `step` apart.
template <typename T>
inline void means_of_rows(const T* x, int64_t rows, int64_t step, int64_t width, float* mean) {
  tiles(width, [&](int64_t column, auto tile, auto count) {
    using Tile = decltype(tile);
    typename Tile::Value total[Tile::sums][Tile::size] = {};
    const T* xs = x + column;
    each_row<Tile::sums>(rows, [&](int64_t row, int k) {
      for (int v = 0; v < Tile::size; ++v) total[k][v] = total[k][v] + load(xs + row * step + v * Tile::width, count);
    });
    for (int v = 0; v < Tile::size; ++v) {
      for (int k = 1; k < Tile::sums; ++k) total[0][v] = total[0][v] + total[k][v];
      store_for<T>(mean + column + v * Tile::width, total[0][v] / float(rows), count);
    }
  });
}

// Means and sums of squares of some rows, merged into those of `before` rows, as in `spread_around`. Where there are
// none before, `mean` is nearly theirs, and the sums are 0.
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

// --------------------------------------------------------------------------------------------------------- reductions

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

// --------------------------------------------------------------------------------------------------------- pointwise

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

}  // namespace normshift
