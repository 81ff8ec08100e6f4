// The formulas of normshift/formulas.py and their gradients, as loops over N x C moments in float32.
//
// In torch each of them is some dozens of operations on a few thousand numbers: between two passes over an activation,
// which leave nothing of them in the caches, that takes longer than a pass. formulas.py stays the source: names and
// order are its own. Rows are images, columns are channels. Sums do not depend on the number of threads.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;
constexpr int64_t GRAIN = 8 * 1024;  // values that are worth a thread

inline float rsqrt(float value) { return 1.f / std::sqrt(value); }

// A tensor of so many values that is read: contiguous, in float32.
struct Input {
  Tensor held;
  const float* data = nullptr;
  Input(const Maybe& tensor, int64_t values) {
    if (!tensor) return;
    TORCH_CHECK(tensor->scalar_type() == at::kFloat, "normshift: loops take float32, not ", tensor->scalar_type());
    TORCH_CHECK(tensor->numel() == values, "normshift: ", values, " values were expected, not a tensor of shape ",
                tensor->sizes(), ": has a parameter or buffer of the norm been replaced?");
    held = tensor->contiguous();
    data = held.const_data_ptr<float>();
  }
  const float* row(int64_t n, int64_t C) const { return data + n * C; }
  float operator[](int64_t i) const { return data[i]; }
  explicit operator bool() const { return data != nullptr; }
};

// A tensor that is written.
struct Output {
  Tensor held;
  float* data;
  Output(const Tensor& like, at::IntArrayRef size) : held(at::empty(size, like.options())), data(held.data_ptr<float>()) {}
  float* row(int64_t n, int64_t C) const { return data + n * C; }
  float& operator[](int64_t i) const { return data[i]; }
};

// f(first row, last row + 1): some rows, whole.
template <typename F>
void rows(int64_t N, int64_t C, const F& f) {
  at::parallel_for(0, N, std::max<int64_t>(1, GRAIN / C), f);
}

// f(first column, last column + 1): all rows of some columns.
template <typename F>
void columns(int64_t N, int64_t C, const F& f) {
  at::parallel_for(0, C, std::max<int64_t>(16, GRAIN / N), f);
}

// Sums over the rows, into `sums`.
void sum_columns(const float* values, int64_t N, int64_t C, float* sums, float factor = 1.f) {
  columns(N, C, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) sums[c] = values[c];
    for (int64_t n = 1; n < N; ++n)
      for (int64_t c = begin; c < end; ++c) sums[c] += values[n * C + c];
    for (int64_t c = begin; c < end; ++c) sums[c] *= factor;
  });
}

std::tuple<Tensor, Tensor> pooled(const Tensor& mean, const Tensor& var) {
  int64_t N = mean.size(0), C = mean.size(1);
  Input means(mean, N * C), vars(var, N * C);
  Output pooled_mean(mean, {C}), pooled_var(mean, {C});
  sum_columns(means.data, N, C, pooled_mean.data, 1.f / float(N));
  columns(N, C, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) pooled_var[c] = 0;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = begin; c < end; ++c) {
        float between = means[n * C + c] - pooled_mean[c];
        pooled_var[c] += vars[n * C + c] + between * between;
      }
    for (int64_t c = begin; c < end; ++c) pooled_var[c] /= float(N);
  });
  return {pooled_mean.held, pooled_var.held};
}

// Running averages take `momentum` of new moments, the variance times `unbiased`.
void update_running(
    const Tensor& running_mean, const Tensor& running_var, const Tensor& mean, const Tensor& var, double momentum,
    double unbiased) {
  int64_t C = mean.numel();
  Input means(mean, C), vars(var, C), old_mean(running_mean, C), old_var(running_var, C);
  bool in_place = running_mean.is_contiguous() && running_var.is_contiguous();
  TORCH_CHECK(in_place, "normshift: running averages have to be contiguous");
  float *to_mean = running_mean.data_ptr<float>(), *to_var = running_var.data_ptr<float>();
  for (int64_t c = 0; c < C; ++c) {
    to_mean[c] += float(momentum) * (means[c] - to_mean[c]);
    to_var[c] += float(momentum) * (float(unbiased) * vars[c] - to_var[c]);
  }
}

// ------------------------------------------------------------------------------------------ mixtures: SwitchFormula

constexpr int64_t INSTANCE = 0, BATCH = -1;  // any other statistic is a number of groups: 1 for a layer's

std::vector<float> shares_of(const Maybe& logits, size_t count) {
  if (!logits) return std::vector<float>(count, 1.f);
  Input values(logits, count);
  std::vector<float> shares(values.data, values.data + count);
  float highest = *std::max_element(shares.begin(), shares.end()), total = 0;
  for (float& share : shares) total += share = std::exp(share - highest);
  for (float& share : shares) share /= total;
  return shares;
}

struct Mixture {
  int64_t N, C;
  Input mean, var, batch_mean, batch_var;
  std::vector<int64_t> statistics;
  std::vector<float> of_mean, of_var;  // shares

  Mixture(const Tensor& mean, const Tensor& var, const Maybe& batch_mean, const Maybe& batch_var,
          const Maybe& mean_weight, const Maybe& var_weight, at::IntArrayRef statistics)
      : N(mean.size(0)), C(mean.size(1)), mean(mean, N * C), var(var, N * C), batch_mean(batch_mean, C),
        batch_var(batch_var, C), statistics(statistics.vec()), of_mean(shares_of(mean_weight, statistics.size())),
        of_var(shares_of(var_weight, statistics.size())) {
    for (int64_t statistic : statistics) {
      bool takes_batch = statistic == BATCH && this->batch_mean && this->batch_var;
      bool known = statistic == INSTANCE || takes_batch || (statistic > 0 && C % statistic == 0);
      TORCH_CHECK(known, "normshift: no statistic ", statistic, " of ", C, " channels");
    }
  }

  // An image's means and variances by groups of channels, in `m` and `v`.
  void pool(int64_t n, int64_t groups, float* m, float* v) const {
    const float *own_mean = mean.row(n, C), *own_var = var.row(n, C);
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
      int64_t n, int64_t k, const float* m, const float* by_mean, const float* by_var, float* dmean, float* dvar) const {
    const float* own_mean = mean.row(n, C);
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
};

// One image after another: its statistics, and what they are mixed to.
struct Mixing {
  struct Statistic {
    const float *mean, *var;  // (C,)
  };
  const Mixture& of;
  std::vector<float> pooled, mixed;
  std::vector<Statistic> found;
  const float *distance, *var;  // (C,): the mixture of distances from the own mean, and of variances

  explicit Mixing(const Mixture& mixture)
      : of(mixture), pooled(2 * mixture.statistics.size() * mixture.C), mixed(2 * mixture.C),
        found(mixture.statistics.size()), distance(mixed.data()), var(distance + mixture.C) {}

  Statistic find(int64_t n, size_t k) {
    if (of.statistics[k] == INSTANCE) return {of.mean.row(n, of.C), of.var.row(n, of.C)};
    if (of.statistics[k] == BATCH) return {of.batch_mean.data, of.batch_var.data};
    float* here = &pooled[2 * k * of.C];
    of.pool(n, of.statistics[k], here, here + of.C);
    return {here, here + of.C};
  }

  void mix(int64_t n) {
    const float* own_mean = of.mean.row(n, of.C);
    float *distances = mixed.data(), *variances = distances + of.C;
    std::fill(mixed.begin(), mixed.end(), 0.f);
    for (size_t k = 0; k < found.size(); ++k) {
      found[k] = find(n, k);
      const float *m = found[k].mean, *v = found[k].var;
      float a = of.of_mean[k], b = of.of_var[k];
#pragma omp simd
      for (int64_t c = 0; c < of.C; ++c) {
        distances[c] += a * (own_mean[c] - m[c]);
        variances[c] += b * v[c];
      }
    }
  }
};

std::tuple<Tensor, Tensor> mixed(
    const Tensor& mean, const Tensor& var, const Maybe& batch_mean, const Maybe& batch_var, const Tensor& weight,
    const Tensor& bias, const Maybe& mean_weight, const Maybe& var_weight, at::IntArrayRef statistics, double eps) {
  Mixture mixture(mean, var, batch_mean, batch_var, mean_weight, var_weight, statistics);
  int64_t N = mixture.N, C = mixture.C;
  Input weights(weight, C), biases(bias, C);
  Output scale(mean, {N, C}), shift(mean, {N, C});
  rows(N, C, [&](int64_t begin, int64_t end) {
    Mixing mixing(mixture);
    for (int64_t n = begin; n < end; ++n) {
      mixing.mix(n);
      const float *distance = mixing.distance, *mixed_var = mixing.var;
      float *scales = scale.row(n, C), *shifts = shift.row(n, C);
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        scales[c] = weights[c] * rsqrt(mixed_var[c] + float(eps));
        shifts[c] = biases[c] + scales[c] * distance[c];
      }
    }
  });
  return {scale.held, shift.held};
}

// Gradients with respect to mean, var, batch_mean, batch_var, weight, bias, mean_weight and var_weight.
std::vector<Tensor> mixed_gradient(
    const Tensor& mean, const Tensor& var, const Maybe& batch_mean, const Maybe& batch_var, const Tensor& weight,
    const Tensor& bias, const Maybe& mean_weight, const Maybe& var_weight, at::IntArrayRef statistics, double eps,
    const Tensor& dscale, const Tensor& dshift) {
  Mixture mixture(mean, var, batch_mean, batch_var, mean_weight, var_weight, statistics);
  int64_t N = mixture.N, C = mixture.C, K = statistics.size();
  Input weights(weight, C), dscales(dscale, N * C), dshifts(dshift, N * C);
  Output dmean(mean, {N, C}), dvar(mean, {N, C}), through(mean, {N, C}), by_mean(mean, {N, C}), by_var(mean, {N, C});
  std::vector<double> dots(N * 2 * K);  // of the mixtures' gradients with what each statistic differs by
  rows(N, C, [&](int64_t begin, int64_t end) {
    Mixing mixing(mixture);
    for (int64_t n = begin; n < end; ++n) {
      mixing.mix(n);
      const float *distance = mixing.distance, *mixed_var = mixing.var;
      const float *own_mean = mixture.mean.row(n, C), *dsc = dscales.row(n, C), *dsh = dshifts.row(n, C);
      float *dm = dmean.row(n, C), *dv = dvar.row(n, C), *bm = by_mean.row(n, C), *bv = by_var.row(n, C);
      float* thr = through.row(n, C);
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        float rsigma = rsqrt(mixed_var[c] + float(eps));
        thr[c] = (dsc[c] + dsh[c] * distance[c]) * rsigma;
        dm[c] = dsh[c] * weights[c] * rsigma;
        dv[c] = 0;
        bm[c] = -dm[c];
        bv[c] = thr[c] * rsigma * rsigma * weights[c] * -0.5f;
      }
      for (int64_t k = 0; k < K; ++k) {
        const float *m = mixing.found[k].mean, *v = mixing.found[k].var;
        float dot_mean = 0, dot_var = 0;
#pragma omp simd reduction(+ : dot_mean, dot_var)
        for (int64_t c = 0; c < C; ++c) {
          dot_mean += bm[c] * (distance[c] - (own_mean[c] - m[c]));
          dot_var += bv[c] * (v[c] - mixed_var[c]);
        }
        dots[(n * K + k) * 2] = dot_mean;
        dots[(n * K + k) * 2 + 1] = dot_var;
        if (statistics[k] != BATCH) mixture.distribute(n, k, m, bm, bv, dm, dv);
      }
    }
  });

  Output dweight(mean, {C}), dbias(mean, {C}), dbatch_mean(mean, {C}), dbatch_var(mean, {C});
  sum_columns(through.data, N, C, dweight.data);
  sum_columns(dshifts.data, N, C, dbias.data);
  for (int64_t k = 0; k < K; ++k)
    if (statistics[k] == BATCH) {
      sum_columns(by_mean.data, N, C, dbatch_mean.data, mixture.of_mean[k]);
      sum_columns(by_var.data, N, C, dbatch_var.data, mixture.of_var[k]);
    }
  Output dmean_weight(mean, {K}), dvar_weight(mean, {K});
  for (int64_t k = 0; k < K; ++k) {
    double dot_mean = 0, dot_var = 0;
    for (int64_t n = 0; n < N; ++n) dot_mean += dots[(n * K + k) * 2], dot_var += dots[(n * K + k) * 2 + 1];
    dmean_weight[k] = float(mixture.of_mean[k] * dot_mean);
    dvar_weight[k] = float(mixture.of_var[k] * dot_var);
  }
  return {dmean.held, dvar.held, dbatch_mean.held, dbatch_var.held,
          dweight.held, dbias.held, dmean_weight.held, dvar_weight.held};
}

// --------------------------------------------------------------------------- gates: BatchInstanceFormula and IBN's

// Gates of C channels: `rho`, or 1 from `first` to `last` and 0 elsewhere.
Tensor gates(const Maybe& rho, const Tensor& like, int64_t first, int64_t last) {
  if (rho) return *rho;
  Output fixed(like, {like.size(1)});
  for (int64_t c = 0; c < like.size(1); ++c) fixed[c] = c >= first && c < last;
  return fixed.held;
}

// A vector of all channels, given as one or as its parts.
Tensor whole(at::TensorList parts) { return parts.size() == 1 ? parts[0] : at::cat(parts); }

std::tuple<Tensor, Tensor> gated(
    const Tensor& mean, const Tensor& var, const Tensor& batch_mean, const Tensor& batch_var, at::TensorList weight,
    at::TensorList bias, const Maybe& rho, int64_t first, int64_t last, double eps) {
  int64_t N = mean.size(0), C = mean.size(1);
  Input means(mean, N * C), vars(var, N * C), batch_means(batch_mean, C), batch_vars(batch_var, C);
  Input weights(whole(weight), C), biases(whole(bias), C), gate(gates(rho, mean, first, last), C);
  Output scale(mean, {N, C}), shift(mean, {N, C});
  columns(N, C, [&](int64_t begin, int64_t end) {
    for (int64_t n = 0; n < N; ++n)
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) {
        int64_t i = n * C + c;
        float batch_scale = weights[c] * gate[c] * rsqrt(batch_vars[c] + float(eps));
        scale[i] = batch_scale + weights[c] * (1 - gate[c]) * rsqrt(vars[i] + float(eps));
        shift[i] = biases[c] + batch_scale * (means[i] - batch_means[c]);
      }
  });
  return {scale.held, shift.held};
}

// Gradients with respect to mean, var, batch_mean, batch_var, weight, bias and rho.
std::vector<Tensor> gated_gradient(
    const Tensor& mean, const Tensor& var, const Tensor& batch_mean, const Tensor& batch_var, at::TensorList weight,
    at::TensorList bias, const Maybe& rho, int64_t first, int64_t last, double eps, const Tensor& dscale,
    const Tensor& dshift) {
  int64_t N = mean.size(0), C = mean.size(1);
  Input means(mean, N * C), vars(var, N * C), batch_means(batch_mean, C), batch_vars(batch_var, C);
  Input weights(whole(weight), C), gate(gates(rho, mean, first, last), C);
  Input dscales(dscale, N * C), dshifts(dshift, N * C);
  Output dmean(mean, {N, C}), dvar(mean, {N, C}), dbatch_mean(mean, {C}), dbatch_var(mean, {C});
  Output dweight(mean, {C}), dbias(mean, {C}), drho(mean, {C});
  columns(N, C, [&](int64_t begin, int64_t end) {
    std::vector<float> by_batch(end - begin), by_instance(end - begin);
    for (int64_t c = begin; c < end; ++c) dbias[c] = 0;
    for (int64_t n = 0; n < N; ++n)
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) {
        int64_t i = n * C + c;
        float of_batch = rsqrt(batch_vars[c] + float(eps)), of_instance = rsqrt(vars[i] + float(eps));
        float through = dscales[i] * of_instance;
        by_batch[c - begin] += (dscales[i] + dshifts[i] * (means[i] - batch_means[c])) * of_batch;
        by_instance[c - begin] += through;
        dbias[c] += dshifts[i];
        dmean[i] = dshifts[i] * weights[c] * gate[c] * of_batch;
        dvar[i] = through * of_instance * of_instance * weights[c] * (1 - gate[c]) * -0.5f;
      }
    for (int64_t c = begin; c < end; ++c) {
      float of_batch = rsqrt(batch_vars[c] + float(eps)), batch_scale = weights[c] * gate[c] * of_batch;
      float batch = by_batch[c - begin], instance = by_instance[c - begin];
      dbatch_mean[c] = -batch_scale * dbias[c];
      dbatch_var[c] = batch * batch_scale * of_batch * -0.5f;
      dweight[c] = gate[c] * batch + (1 - gate[c]) * instance;
      drho[c] = weights[c] * (batch - instance);
    }
  });
  return {dmean.held, dvar.held, dbatch_mean.held, dbatch_var.held, dweight.held, dbias.held, drho.held};
}

// ------------------------------------------------------------------------------------------------- engine's last step

// (slope, offset) of dx, from the gradients with respect to a map's moments and those of the batch it has `share` of.
std::tuple<Tensor, Tensor> through_moments(
    const Tensor& mean, const Tensor& scale, const Tensor& dshift, const Tensor& dmean, const Tensor& dvar,
    const Maybe& batch_mean, const Maybe& dbatch_mean, const Maybe& dbatch_var, double share, double of_mean,
    double of_var) {
  int64_t N = mean.size(0), C = mean.size(1);
  Input means(mean, N * C), scales(scale, N * C), dshifts(dshift, N * C), dmeans(dmean, N * C), dvars(dvar, N * C);
  Input batch_means(batch_mean, C), by_means(dbatch_mean, C), by_vars(dbatch_var, C);
  Output slope(mean, {N, C}), offset(mean, {N, C});
  bool pools = bool(batch_means);
  rows(N, C, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        int64_t i = n * C + c;
        float by_mean = dmeans[i] - scales[i] * dshifts[i], by_var = dvars[i];
        if (pools) {
          float of_batch = float(share) * by_vars[c];
          by_mean += float(share) * by_means[c] + 2 * (means[i] - batch_means[c]) * of_batch;
          by_var += of_batch;
        }
        slope[i] = by_var * float(of_var);
        offset[i] = by_mean * float(of_mean);
      }
  });
  return {slope.held, offset.held};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(normshift_cpu, library) {
  library.def("pooled(Tensor mean, Tensor var) -> (Tensor, Tensor)");
  library.def(
      "update_running(Tensor(a!) running_mean, Tensor(b!) running_var, Tensor mean, Tensor var, float momentum, float unbiased) "
      "-> ()");
  library.def(
      "mixed(Tensor mean, Tensor var, Tensor? batch_mean, Tensor? batch_var, Tensor weight, Tensor bias, Tensor? "
      "mean_weight, Tensor? var_weight, int[] statistics, float eps) -> (Tensor, Tensor)");
  library.def(
      "mixed_gradient(Tensor mean, Tensor var, Tensor? batch_mean, Tensor? batch_var, Tensor weight, Tensor bias, "
      "Tensor? mean_weight, Tensor? var_weight, int[] statistics, float eps, Tensor dscale, Tensor dshift) -> Tensor[]");
  library.def(
      "gated(Tensor mean, Tensor var, Tensor batch_mean, Tensor batch_var, Tensor[] weight, Tensor[] bias, Tensor? rho, "
      "int first, int last, float eps) -> (Tensor, Tensor)");
  library.def(
      "gated_gradient(Tensor mean, Tensor var, Tensor batch_mean, Tensor batch_var, Tensor[] weight, Tensor[] bias, "
      "Tensor? rho, int first, int last, float eps, Tensor dscale, Tensor dshift) -> Tensor[]");
  library.def(
      "through_moments(Tensor mean, Tensor scale, Tensor dshift, Tensor dmean, Tensor dvar, Tensor? batch_mean, "
      "Tensor? dbatch_mean, Tensor? dbatch_var, float share, float of_mean, float of_var) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(normshift_cpu, CPU, library) {
  library.impl("pooled", pooled);
  library.impl("update_running", update_running);
  library.impl("mixed", mixed);
  library.impl("mixed_gradient", mixed_gradient);
  library.impl("gated", gated);
  library.impl("gated_gradient", gated_gradient);
  library.impl("through_moments", through_moments);
}
