// The formulas of normshift/formulas.py and their gradients, as loops over N x C moments in float32.
//
// In torch each of them is some dozens of operations on a few thousand numbers. formulas.py stays the source: names and
// order are its own. Rows are images, columns are channels. Sums do not depend on the number of threads.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "passes.h"

namespace normshift {

inline float rsqrt(float value) { return 1.f / std::sqrt(value); }

// Some images, and some channels.
struct Rows {
  int64_t begin, end;
};
struct Columns {
  int64_t begin, end;
};

// f(first row, last row + 1): some rows, whole.
template <typename F>
void each_rows(int64_t N, int64_t C, const F& f) {
  parallel(0, N, std::max<int64_t>(1, GRAIN / 8 / C), f);
}

// f(Columns): all rows of some columns.
template <typename F>
void each_columns(int64_t N, int64_t C, const F& f) {
  int64_t grain = std::max<int64_t>(16, GRAIN / 8 / N);
  parallel(0, C, grain, [&](int64_t begin, int64_t end) { f(Columns{begin, end}); });
}

// Sums over the rows, into `sums`.
inline void sum_columns(Vectors values, int64_t N, Columns columns, float* sums, float factor = 1.f) {
  for (int64_t c = columns.begin; c < columns.end; ++c) sums[c] = values[0][c];
  for (int64_t n = 1; n < N; ++n)
    for (int64_t c = columns.begin; c < columns.end; ++c) sums[c] += values[n][c];
  for (int64_t c = columns.begin; c < columns.end; ++c) sums[c] *= factor;
}

// What statistics a formula is given: those of each image, and those of the batch, (C,).
struct Statistics {
  Vectors mean, var;
  float *batch_mean = nullptr, *batch_var = nullptr;
};

// The batch's statistics from each image's, by the law of total variance.
inline void pool(const Statistics& of, int64_t N, Columns columns) {
  sum_columns(of.mean, N, columns, of.batch_mean, 1.f / float(N));
  for (int64_t c = columns.begin; c < columns.end; ++c) of.batch_var[c] = 0;
  for (int64_t n = 0; n < N; ++n) {
    const float *mean = of.mean[n], *var = of.var[n];
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      float between = mean[c] - of.batch_mean[c];
      of.batch_var[c] += var[c] + between * between;
    }
  }
  for (int64_t c = columns.begin; c < columns.end; ++c) of.batch_var[c] /= float(N);
}

// From the end that is nearer, as torch.lerp: with a share of 1 it is the new value to the last digit.
inline float moved(float old, float to, float share) {
  return share < 0.5f ? old + share * (to - old) : to - (to - old) * (1 - share);
}

// Running averages of the channels first..last.
struct Averages {
  float *mean = nullptr, *var = nullptr;
  int64_t first = 0, last = 0;

  Columns within(Columns columns) const { return {std::max(columns.begin, first), std::min(columns.end, last)}; }

  // They take `momentum` of new moments, the variance times `unbiased`.
  void update(const Statistics& by, Columns columns, float momentum, float unbiased) const {
    Columns own = within(columns);
    for (int64_t c = own.begin; c < own.end; ++c) {
      mean[c - first] = moved(mean[c - first], by.batch_mean[c], momentum);
      var[c - first] = moved(var[c - first], unbiased * by.batch_var[c], momentum);
    }
  }
  void read(const Statistics& into) const {
    std::copy_n(mean, last - first, into.batch_mean + first);
    std::copy_n(var, last - first, into.batch_var + first);
  }
};

// What a formula's gradient is given, and where it goes: those with respect to scale and shift, to each image's mean
// and variance, and to the batch's, (C,).
struct Gradients {
  Vectors dscale, dshift, dmean, dvar;
  float *dbatch_mean, *dbatch_var;
};

// ------------------------------------------------------------------------------------------ mixtures: SwitchFormula

constexpr int64_t INSTANCE = 0, BATCH = -1;  // any other statistic is a number of groups: 1 for a layer's

// The softmax of logits; ones where there are none.
inline std::vector<float> shares_of(const float* logits, size_t count) {
  if (!logits) return std::vector<float>(count, 1.f);
  std::vector<float> shares(logits, logits + count);
  float highest = *std::max_element(shares.begin(), shares.end()), total = 0;
  for (float& share : shares) total += share = std::exp(share - highest);
  for (float& share : shares) share /= total;
  return shares;
}

struct Mixture {
  int64_t N, C;
  std::vector<int64_t> statistics;
  float eps;
  const float *weight, *bias;
  std::vector<float> of_mean, of_var;  // shares

  // The gradients with respect to a mixture's parameters; of the logits, one for each statistic.
  struct Parameters {
    float *weight, *bias, *mean_weight, *var_weight;
  };

  bool takes(int64_t statistic) const {
    return std::find(statistics.begin(), statistics.end(), statistic) != statistics.end();
  }

  // An image's means and variances by groups of channels, in `m` and `v`.
  void group(const float* own_mean, const float* own_var, int64_t groups, float* m, float* v) const {
    int64_t size = C / groups;
    for (int64_t begin = 0; begin < C; begin += size) {
      float pooled_mean = 0, pooled_var = 0;
#pragma omp simd reduction(+ : pooled_mean)
      for (int64_t c = begin; c < begin + size; ++c) pooled_mean += own_mean[c];
      pooled_mean /= float(size);
#pragma omp simd reduction(+ : pooled_var)
      for (int64_t c = begin; c < begin + size; ++c) {
        float between = own_mean[c] - pooled_mean;
        pooled_var += own_var[c] + between * between;
      }
      std::fill_n(m + begin, size, pooled_mean);
      std::fill_n(v + begin, size, pooled_var / float(size));
    }
  }

  // Adds to the gradients with respect to an image's moments what goes through statistic k, whose means are `m`.
  void distribute(
      const float* own_mean, int64_t k, const float* m, const float* by_mean, const float* by_var, float* dmean,
      float* dvar) const {
    float a = of_mean[k], b = of_var[k];
    if (statistics[k] == INSTANCE) {
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) dmean[c] += a * by_mean[c], dvar[c] += b * by_var[c];
      return;
    }
    int64_t size = C / statistics[k];
    for (int64_t begin = 0; begin < C; begin += size) {
      float sum_mean = 0, sum_var = 0;
#pragma omp simd reduction(+ : sum_mean, sum_var)
      for (int64_t c = begin; c < begin + size; ++c) sum_mean += by_mean[c], sum_var += by_var[c];
      sum_mean *= a / float(size), sum_var *= b / float(size);
#pragma omp simd
      for (int64_t c = begin; c < begin + size; ++c) {
        dmean[c] += sum_mean + 2 * (own_mean[c] - m[c]) * sum_var;
        dvar[c] += sum_var;
      }
    }
  }

  void evaluate(const Statistics& of, Rows images, Vectors scale, Vectors shift) const;
  void gradient(const Statistics& of, const Gradients& by, Vectors scale, const Parameters& parameters) const;
};

// One image after another: its statistics, and what they are mixed to.
struct Mixing {
  struct Statistic {
    const float *mean, *var;  // (C,)
  };
  const Mixture& mixture;
  const Statistics& of;
  std::vector<float> grouped, mixed;
  std::vector<Statistic> found;
  const float *distance, *var;  // (C,): the mixture of distances from the own mean, and of variances

  Mixing(const Mixture& mixture, const Statistics& of)
      : mixture(mixture),
        of(of),
        grouped(2 * mixture.statistics.size() * mixture.C),
        mixed(2 * mixture.C),
        found(mixture.statistics.size()),
        distance(mixed.data()),
        var(distance + mixture.C) {}

  Statistic find(int64_t n, size_t k) {
    if (mixture.statistics[k] == INSTANCE) return {of.mean[n], of.var[n]};
    if (mixture.statistics[k] == BATCH) return {of.batch_mean, of.batch_var};
    float* here = &grouped[2 * k * mixture.C];
    mixture.group(of.mean[n], of.var[n], mixture.statistics[k], here, here + mixture.C);
    return {here, here + mixture.C};
  }

  void mix(int64_t n) {
    int64_t C = mixture.C;
    const float* own_mean = of.mean[n];
    float *distances = mixed.data(), *variances = distances + C;
    std::fill(mixed.begin(), mixed.end(), 0.f);
    for (size_t k = 0; k < found.size(); ++k) {
      found[k] = find(n, k);
      const float *m = found[k].mean, *v = found[k].var;
      float a = mixture.of_mean[k], b = mixture.of_var[k];
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        distances[c] += a * (own_mean[c] - m[c]);
        variances[c] += b * v[c];
      }
    }
  }
};

inline void Mixture::evaluate(const Statistics& of, Rows images, Vectors scale, Vectors shift) const {
  Mixing mixing(*this, of);
  for (int64_t n = images.begin; n < images.end; ++n) {
    mixing.mix(n);
    const float *distance = mixing.distance, *var = mixing.var;
    float *scales = scale[n], *shifts = shift[n];
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      scales[c] = weight[c] * rsqrt(var[c] + eps);
      shifts[c] = bias[c] + scales[c] * distance[c];
    }
  }
}

// Everything in `by` and `parameters` that is written, and the scale again.
inline void Mixture::gradient(
    const Statistics& of, const Gradients& by, Vectors scale, const Parameters& parameters) const {
  int64_t K = statistics.size();
  std::vector<float> space(3 * N * C);
  Vectors through{space.data(), C}, by_mean{through[N], C}, by_var{by_mean[N], C};
  std::vector<double> dots(N * 2 * K);  // of the mixtures' gradients with what each statistic differs by
  each_rows(N, C, [&](int64_t begin, int64_t end) {
    Mixing mixing(*this, of);
    for (int64_t n = begin; n < end; ++n) {
      mixing.mix(n);
      const float *distance = mixing.distance, *var = mixing.var, *own_mean = of.mean[n];
      const float *dscale = by.dscale[n], *dshift = by.dshift[n];
      float *dmean = by.dmean[n], *dvar = by.dvar[n], *bm = by_mean[n], *bv = by_var[n], *thr = through[n];
      float* scales = scale[n];
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        float rsigma = rsqrt(var[c] + eps);
        scales[c] = weight[c] * rsigma;
        thr[c] = (dscale[c] + dshift[c] * distance[c]) * rsigma;
        dmean[c] = dshift[c] * scales[c];
        dvar[c] = 0;
        bm[c] = -dmean[c];
        bv[c] = thr[c] * rsigma * rsigma * weight[c] * -0.5f;
      }
      for (int64_t k = 0; k < K; ++k) {
        const float *m = mixing.found[k].mean, *v = mixing.found[k].var;
        float dot_mean = 0, dot_var = 0;
#pragma omp simd reduction(+ : dot_mean, dot_var)
        for (int64_t c = 0; c < C; ++c) {
          dot_mean += bm[c] * (distance[c] - (own_mean[c] - m[c]));
          dot_var += bv[c] * (v[c] - var[c]);
        }
        dots[(n * K + k) * 2] = dot_mean;
        dots[(n * K + k) * 2 + 1] = dot_var;
        if (statistics[k] != BATCH) distribute(own_mean, k, m, bm, bv, dmean, dvar);
      }
    }
  });
  each_columns(N, C, [&](Columns columns) {
    sum_columns(through, N, columns, parameters.weight);
    sum_columns(by.dshift, N, columns, parameters.bias);
    for (int64_t k = 0; k < K; ++k)
      if (statistics[k] == BATCH) {
        sum_columns(by_mean, N, columns, by.dbatch_mean, of_mean[k]);
        sum_columns(by_var, N, columns, by.dbatch_var, of_var[k]);
      }
  });
  for (int64_t k = 0; k < K && parameters.mean_weight; ++k) {
    double dot_mean = 0, dot_var = 0;
    for (int64_t n = 0; n < N; ++n) dot_mean += dots[(n * K + k) * 2], dot_var += dots[(n * K + k) * 2 + 1];
    parameters.mean_weight[k] = float(of_mean[k] * dot_mean);
    parameters.var_weight[k] = float(of_var[k] * dot_var);
  }
}

// ------------------------------------------------------- gates: BatchInstanceFormula, IBN's, instance and batch norm

struct Gates {
  int64_t N, C;
  float eps;
  const float *weight, *bias, *gate;  // (C,): the gates are 1 for batch norm, 0 for instance norm

  // The gradients with respect to a gated norm's parameters; `rho` may be null.
  struct Parameters {
    float *weight, *bias, *rho;
  };

  // What a gate closes is not looked at: it may be infinite.
  void evaluate(const Statistics& of, Rows images, Columns columns, Vectors scale, Vectors shift) const {
    for (int64_t n = images.begin; n < images.end; ++n) {
      const float *mean = of.mean[n], *var = of.var[n];
      float *scales = scale[n], *shifts = shift[n];
#pragma omp simd
      for (int64_t c = columns.begin; c < columns.end; ++c) {
        float batch_scale = gate[c] == 0 ? 0.f : weight[c] * gate[c] * rsqrt(of.batch_var[c] + eps);
        float instance_scale = gate[c] == 1 ? 0.f : weight[c] * (1 - gate[c]) * rsqrt(var[c] + eps);
        scales[c] = batch_scale + instance_scale;
        shifts[c] = gate[c] == 0 ? bias[c] : bias[c] + batch_scale * (mean[c] - of.batch_mean[c]);
      }
    }
  }

  // Everything in `by` and `parameters` that is written, and the scale again.
  void gradient(
      const Statistics& of, const Gradients& by, Columns columns, Vectors scale, const Parameters& parameters) const {
    std::vector<float> sums(2 * (columns.end - columns.begin));
    float *by_batch = sums.data(), *by_instance = by_batch + (columns.end - columns.begin);
    float* dbias = parameters.bias;
    for (int64_t c = columns.begin; c < columns.end; ++c) dbias[c] = 0;
    for (int64_t n = 0; n < N; ++n) {
      const float *mean = of.mean[n], *var = of.var[n], *dscale = by.dscale[n], *dshift = by.dshift[n];
      float *dmean = by.dmean[n], *dvar = by.dvar[n], *scales = scale[n];
#pragma omp simd
      for (int64_t c = columns.begin; c < columns.end; ++c) {
        float of_batch = rsqrt(of.batch_var[c] + eps), of_instance = rsqrt(var[c] + eps);
        float batch_scale = gate[c] == 0 ? 0.f : weight[c] * gate[c] * of_batch;
        float instance_scale = gate[c] == 1 ? 0.f : weight[c] * (1 - gate[c]) * of_instance;
        float through = dscale[c] * of_instance;
        by_batch[c - columns.begin] += (dscale[c] + dshift[c] * (mean[c] - of.batch_mean[c])) * of_batch;
        by_instance[c - columns.begin] += through;
        dbias[c] += dshift[c];
        scales[c] = batch_scale + instance_scale;
        dmean[c] = dshift[c] * batch_scale;
        dvar[c] = instance_scale == 0 ? 0.f : through * of_instance * instance_scale * -0.5f;
      }
    }
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      float of_batch = rsqrt(of.batch_var[c] + eps), batch_scale = weight[c] * gate[c] * of_batch;
      bool uses_batch = gate[c] != 0;
      by.dbatch_mean[c] = uses_batch ? -batch_scale * dbias[c] : 0.f;
      by.dbatch_var[c] = uses_batch ? by_batch[c - columns.begin] * batch_scale * of_batch * -0.5f : 0.f;
      float batch_part = uses_batch ? gate[c] * by_batch[c - columns.begin] : 0.f;
      float instance_part = gate[c] == 1 ? 0.f : (1 - gate[c]) * by_instance[c - columns.begin];
      parameters.weight[c] = batch_part + instance_part;
      if (parameters.rho)
        parameters.rho[c] = weight[c] * (by_batch[c - columns.begin] - by_instance[c - columns.begin]);
    }
  }
};

// ------------------------------------------------------------------------------------------------- engine's last step

// How much of a map's mean and variance each of its values is, and how much of the batch's a map is (0: nothing).
struct Derivatives {
  float of_mean, of_var, share;
};

// (slope, offset) of dx, from the gradients with respect to a map's moments and to the batch's.
inline void through_moments(
    const Statistics& of, const Gradients& by, const Derivatives& derivatives, Rows images, Columns columns,
    Vectors scale, Vectors slope, Vectors offset) {
  float share = derivatives.share, of_mean = derivatives.of_mean, of_var = derivatives.of_var;
  for (int64_t n = images.begin; n < images.end; ++n) {
    const float *mean = of.mean[n], *scales = scale[n];
    const float *dshift = by.dshift[n], *dmean = by.dmean[n], *dvar = by.dvar[n];
    float *slopes = slope[n], *offsets = offset[n];
    if (share == 0) {
#pragma omp simd
      for (int64_t c = columns.begin; c < columns.end; ++c) {
        slopes[c] = dvar[c] * of_var;
        offsets[c] = (dmean[c] - scales[c] * dshift[c]) * of_mean;
      }
      continue;
    }
#pragma omp simd
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      float of_batch = share * by.dbatch_var[c], own = dmean[c] - scales[c] * dshift[c];
      slopes[c] = (dvar[c] + of_batch) * of_var;
      offsets[c] = (own + share * by.dbatch_mean[c] + 2 * (mean[c] - of.batch_mean[c]) * of_batch) * of_mean;
    }
  }
}

}  // namespace normshift
