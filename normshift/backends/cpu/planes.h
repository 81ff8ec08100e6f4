// The passes over planes: maps whose positions lie one after another.

#pragma once

#include "shape.h"

namespace normshift {

constexpr int64_t FEW = 6;  // vectors: sums of planes that are smaller take longer than the planes

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
// corrects, or of at least as many values before. It then loses no more than the last bits of the variance of all:
// where the means differ, that variance is as large as what is subtracted here.
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

// --------------------------------------------------------------------------------------------------------- pointwise

template <typename T>
inline void scale_shift(const T* x, int64_t P, float mean, float scale, float shift, T* y, bool past_the_caches) {
  Floats centre = all(mean), factor = all(scale), offset = all(shift);
  each_pair<1>(P, [&](int64_t i, auto count, int) {
    put(y + i, (load(x + i, count) - centre) * factor + offset, count, past_the_caches);
  });
}

template <typename T>
inline void input_gradient(
    const T* dy, const T* x, int64_t P, float mean, float scale, float slope, float offset, T* dx,
    bool past_the_caches) {
  Floats centre = all(mean), factor = all(scale), tilt = all(slope), rest = all(offset);
  each_pair<1>(P, [&](int64_t i, auto count, int) {
    auto through = (load(x + i, count) - centre) * tilt + rest;
    put(dx + i, load(dy + i, count) * factor + through, count, past_the_caches);
  });
}

}  // namespace normshift
