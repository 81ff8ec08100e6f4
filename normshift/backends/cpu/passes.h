// The four passes of normshift.backends over float32, bfloat16 and float16 activations, in threads.
//
// All arithmetic is float32. How sums are cut depends on the shape alone, so that the number of threads changes no
// digit.

#pragma once

#include <vector>

#include "parallel.h"
#include "planes.h"
#include "rows.h"

namespace normshift {

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

template <typename T>
void scale_shift(
    const Shape& shape, Images<const T> x, Vectors mean, Vectors scale, Vectors shift, Images<T> y, int64_t live) {
  int64_t C = shape.C, P = shape.P;
  bool past = streams(shape, y.data, shape.rows ? C : P, live);
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
void input_gradient(
    const Shape& shape, Images<const T> dy, Images<const T> x, Vectors mean, Vectors scale, Vectors slope,
    Vectors offset, Images<T> dx) {
  int64_t C = shape.C, P = shape.P;
  bool past = streams(shape, dx.data, shape.rows ? C : P, 4);
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
