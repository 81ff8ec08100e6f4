// A whole norm layer, forward and backward: the passes with a formula between them.
//
// Where no batch is pooled, an image, or with gates a few of its planes, goes through all steps before the next:
// memory is read once. So do a few channels of all images where a formula looks at one channel at a time (gates) and
// channels lie in planes that no cache keeps. Elsewhere, and where there are too few images for all threads, each step
// is one pass over the whole activation. All ways compute the same digits.

#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "formulas.h"

namespace normshift {

// Memory for vectors of C channels, not initialised.
class Space {
  std::unique_ptr<float[]> held;
  float* next;
  int64_t C;

 public:
  Space(int64_t rows, int64_t C) : held(new float[rows * C]), next(held.get()), C(C) {}
  Vectors vectors(int64_t rows) { return {std::exchange(next, next + rows * C), C}; }
};

constexpr int64_t CACHED = 512 * 1024;  // bytes of activations that a core's second-level cache keeps beside the rest

struct Layer {
  Shape shape;
  std::optional<Mixture> mixture;  // either this
  std::optional<Gates> gates;      // or this
  Averages averages;               // whose first..last are the channels that use the batch; none where these are equal
  bool training = false;           // whether the batch's statistics are its own, or running averages
  int64_t correction = 0;          // images' variances are divided by P - correction

  bool uses_batch() const { return averages.first < averages.last; }
  float corrected() const { return float(shape.P) / float(std::max<int64_t>(shape.P - correction, 1)); }
  Derivatives derivatives() const {
    float of_mean = 1.f / float(shape.P), share = training && uses_batch() ? 1.f / float(shape.N) : 0.f;
    return {of_mean, 2 * of_mean * corrected(), share};
  }
};

// How running averages move in a forward pass.
struct Observation {
  bool wanted = false;
  float momentum = 0, unbiased = 1;
};

// Channels that go through all steps together before the next ones, for gates in planes that no cache keeps; or 0.
template <typename T>
inline int64_t channels_at_once(const Layer& layer, int64_t activations) {
  const Shape& shape = layer.shape;
  int64_t bytes = shape.values() * int64_t(sizeof(T));
  if (shape.rows || !layer.gates || shape.C < threads() || activations * bytes < LARGE) return 0;
  return std::clamp<int64_t>(CACHED * shape.C / (activations * bytes), 1, (shape.C + threads() - 1) / threads());
}

template <typename F>
inline void each_block(const Shape& shape, int64_t channels, const F& f) {
  int64_t worthwhile = std::max<int64_t>(1, GRAIN / (shape.N * shape.P));
  parallel(0, shape.C, std::max(channels, worthwhile), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c += channels) f(Columns{c, std::min(end, c + channels)});
    fence();
  });
}

// ------------------------------------------------------------------------------------------------------------ forward

template <typename T>
struct Forward {
  const Layer& layer;
  const Shape& shape;
  Images<const T> x;
  Images<T> y;
  Statistics found;  // is written
  Columns own;       // the channels whose own moments are needed
  Observation observation;
  Space space;
  Vectors scale, shift;

  Forward(
      const Layer& layer, Images<const T> x, Images<T> y, const Statistics& found, Columns own, Observation observation)
      : layer(layer),
        shape(layer.shape),
        x(x),
        y(y),
        found(found),
        own(own),
        observation(observation),
        space(2 * shape.N, shape.C),
        scale(space.vectors(shape.N)),
        shift(space.vectors(shape.N)) {}

  void run() {
    if (found.batch_mean) {  // for channels that do not use them, something finite
      std::fill_n(found.batch_mean, shape.C, 0.f);
      std::fill_n(found.batch_var, shape.C, 1.f);
      if (!layer.training) layer.averages.read(found);
    }
    if (layer.training && layer.uses_batch()) return with_batch();
    if (!shape.rows && layer.gates) return plane_by_plane();
    bool even = shape.N % threads() == 0 || shape.N >= 4 * threads() || shape.values() <= GRAIN;
    if (even && own.begin < own.end) return image_by_image();
    in_passes();
  }

  void with_batch() {
    int64_t channels = channels_at_once<T>(layer, 1);
    if (!channels) return in_passes();
    each_block(shape, channels, [&](Columns columns) { block({0, shape.N}, columns); });
  }

  // Activations that are in use around this one: in training those of the backward pass as well.
  int64_t live() const { return layer.training ? 4 : 2; }

  // A few planes of an image at a time.
  void plane_by_plane() {
    int64_t bytes = shape.P * int64_t(sizeof(T)), some = std::clamp<int64_t>(CACHED / 4 / bytes, 1, shape.C);
    int64_t blocks = (shape.C + some - 1) / some, worthwhile = std::max<int64_t>(1, GRAIN / (some * shape.P));
    parallel(0, shape.N * blocks, worthwhile, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t n = i / blocks, c = i % blocks * some;
        block({n, n + 1}, {c, std::min(c + some, shape.C)});
      }
      fence();
    });
  }

  void image_by_image() {
    parallel(0, shape.N, shape.images_a_task(), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) image(n);
      fence();
    });
  }

  void in_passes() {
    if (own.begin < own.end) moments(shape, x, own.begin, own.end, found.mean, found.var);
    each_columns(shape.N, shape.C, [&](Columns columns) { after_moments({0, shape.N}, columns); });
    each_rows(shape.N, shape.C, [&](int64_t begin, int64_t end) { formula({begin, end}, {0, shape.C}); });
    scale_shift(shape, x, found.mean, scale, shift, y, live());
  }

  // What belongs between moments and the formula, for some images and channels.
  void after_moments(Rows images, Columns columns) {
    float corrected = layer.corrected();
    bool all_own = own.begin <= columns.begin && columns.end <= own.end;
    for (int64_t n = images.begin; n < images.end && (layer.correction || !all_own); ++n) {
      float *mean = found.mean[n], *var = found.var[n];
      for (int64_t c = columns.begin; c < columns.end; ++c) {
        if (c < own.begin || c >= own.end)
          mean[c] = found.batch_mean[c], var[c] = found.batch_var[c];
        else if (layer.correction)
          var[c] *= corrected;
      }
    }
    if (layer.training && layer.uses_batch()) {
      Columns pooled = layer.averages.within(columns);
      if (pooled.begin < pooled.end) pool(found, shape.N, pooled);
      if (observation.wanted) layer.averages.update(found, columns, observation.momentum, observation.unbiased);
    }
  }

  void formula(Rows images, Columns columns) {
    if (layer.gates)
      layer.gates->evaluate(found, images, columns, scale, shift);
    else
      layer.mixture->evaluate(found, images, scale, shift);
  }

  // All steps for some planes.
  void block(Rows images, Columns columns) {
    int64_t P = shape.P, first = std::max(columns.begin, own.begin), last = std::min(columns.end, own.end);
    for (int64_t n = images.begin; n < images.end; ++n)
      moments_of_planes(x[n] + first * P, last - first, P, found.mean[n] + first, found.var[n] + first);
    after_moments(images, columns);
    formula(images, columns);
    bool past = streams(shape, y.data, P, live());
    for (int64_t n = images.begin; n < images.end; ++n)
      for (int64_t c = columns.begin; c < columns.end; ++c)
        scale_shift(x[n] + c * P, P, found.mean[n][c], scale[n][c], shift[n][c], y[n] + c * P, past);
  }

  // All steps for an image.
  void image(int64_t n) {
    if (!shape.rows) return block({n, n + 1}, {0, shape.C});
    moments_of_image(shape, x[n], own.begin, own.end, found.mean[n], found.var[n]);
    after_moments({n, n + 1}, {0, shape.C});
    formula({n, n + 1}, {0, shape.C});
    bool past = streams(shape, y.data, shape.C, live());
    scale_shift(shape, x[n], 0, shape.P, found.mean[n], scale[n], shift[n], y[n], past);
  }
};

// ----------------------------------------------------------------------------------------------------------- backward

template <typename T>
struct Backward {
  const Layer& layer;
  const Shape& shape;
  Images<const T> dy, x;
  Images<T> dx;  // none where its data is null
  Statistics found;
  Space space;
  Gradients by;
  Vectors scale, slope, offset;

  Backward(const Layer& layer, Images<const T> dy, Images<const T> x, Images<T> dx, const Statistics& found)
      : layer(layer), shape(layer.shape), dy(dy), x(x), dx(dx), found(found), space(5 * shape.N + 2, shape.C) {
    int64_t N = shape.N;
    by.dscale = space.vectors(N), by.dshift = space.vectors(N);
    by.dmean = space.vectors(N), by.dvar = space.vectors(N);
    by.dbatch_mean = space.vectors(1).data, by.dbatch_var = space.vectors(1).data;
    scale = space.vectors(N);
    slope = by.dvar, offset = by.dmean;  // each element is read before it is written
  }

  void run(const Gates::Parameters& parameters) {
    int64_t channels = channels_at_once<T>(layer, 2);
    if (channels) return each_block(shape, channels, [&](Columns columns) { block(columns, parameters); });
    reductions(shape, dy, x, found.mean, by.dshift, by.dscale);
    each_columns(shape.N, shape.C, [&](Columns columns) {
      layer.gates->gradient(found, by, columns, scale, parameters);
      through_moments(found, by, layer.derivatives(), {0, shape.N}, columns, scale, slope, offset);
    });
    if (dx.data) input_gradient(shape, dy, x, found.mean, scale, slope, offset, dx);
  }

  void run(const Mixture::Parameters& parameters) {
    reductions(shape, dy, x, found.mean, by.dshift, by.dscale);
    layer.mixture->gradient(found, by, scale, parameters);
    each_rows(shape.N, shape.C, [&](int64_t begin, int64_t end) {
      through_moments(found, by, layer.derivatives(), {begin, end}, {0, shape.C}, scale, slope, offset);
    });
    if (dx.data) input_gradient(shape, dy, x, found.mean, scale, slope, offset, dx);
  }

  void block(Columns columns, const Gates::Parameters& parameters) {
    int64_t P = shape.P, c = columns.begin;
    for (int64_t n = 0; n < shape.N; ++n)
      reductions_of_planes(
          dy[n] + c * P, x[n] + c * P, columns.end - c, P, found.mean[n] + c, by.dshift[n] + c, by.dscale[n] + c);
    layer.gates->gradient(found, by, columns, scale, parameters);
    through_moments(found, by, layer.derivatives(), {0, shape.N}, columns, scale, slope, offset);
    bool past = streams(shape, dx.data, P, 4);
    for (int64_t n = 0; n < shape.N && dx.data; ++n)
      for (int64_t c = columns.begin; c < columns.end; ++c)
        input_gradient(
            dy[n] + c * P, x[n] + c * P, P, found.mean[n][c], scale[n][c], slope[n][c], offset[n][c], dx[n] + c * P,
            past);
  }
};

}  // namespace normshift
