// Whole layers in C++ against their papers' formulas in float64, without torch: so that it runs for other processors in
// an emulator, and under sanitizers. Gradients are compared with differences of the float64 loss. Ends with status 1 at
// the first disagreement.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>

#include "layer.h"

namespace normshift {

int64_t count = 3;  // of threads

int64_t threads() { return count; }

void in_threads(int64_t begin, int64_t end, int64_t grain, void (*work)(int64_t, int64_t, void*), void* context) {
  int64_t parts = std::min(count, (end - begin + grain - 1) / grain), each = (end - begin + parts - 1) / parts;
  std::vector<std::thread> running;
  for (int64_t first = begin; first < end; first += each)
    running.emplace_back(work, first, std::min(end, first + each), context);
  for (auto& thread : running) thread.join();
}

}  // namespace normshift

using namespace normshift;

std::mt19937 generator(0);

double normal() { return std::normal_distribution<double>()(generator); }
int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

float value_of(float x) { return x; }
float value_of(BFloat16 x) { return load(&x, Part{1})[0]; }
float value_of(Float16 x) { return load(&x, Part{1})[0]; }
template <typename T>
T rounded_to(double x) {
  T found;
  store(&found, all(float(x)), Part{1});
  return found;
}
template <typename T>
double unit() {
  return std::is_same_v<T, float> ? 1.2e-7 : std::is_same_v<T, BFloat16> ? 7.9e-3 : 9.8e-4;
}

// A norm in float64: gates of batch and instance norm, or a mixture of instance, layer and batch.
struct Norm {
  Shape shape;
  bool mixes, training;
  double eps;
  std::vector<double> weight, bias, gate, of_mean, of_var, running_mean, running_var;  // of_mean, of_var: logits

  int64_t at(int64_t n, int64_t c, int64_t p) const {
    return (n * shape.C + (shape.rows ? 0 : c)) * shape.P + (shape.rows ? p * shape.C + c : p);
  }
  static std::vector<double> softmax(std::vector<double> logits) {
    double total = 0;
    for (double& v : logits) total += v = std::exp(v);
    for (double& v : logits) v /= total;
    return logits;
  }

  std::vector<double> forward(const std::vector<double>& x) const {
    int64_t N = shape.N, C = shape.C, P = shape.P;
    std::vector<double> y(x.size()), mean(N * C), var(N * C), batch_mean(running_mean), batch_var(running_var);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = 0; c < C; ++c) {
        double &m = mean[n * C + c], &v = var[n * C + c];
        for (int64_t p = 0; p < P; ++p) m += x[at(n, c, p)] / P;
        for (int64_t p = 0; p < P; ++p) v += std::pow(x[at(n, c, p)] - m, 2) / P;
      }
    for (int64_t c = 0; c < C && training; ++c) {
      double m = 0, v = 0;
      for (int64_t n = 0; n < N; ++n) m += mean[n * C + c] / N;
      for (int64_t n = 0; n < N; ++n) v += (var[n * C + c] + std::pow(mean[n * C + c] - m, 2)) / N;
      batch_mean[c] = m, batch_var[c] = v;
    }
    auto a = softmax(of_mean), b = softmax(of_var);
    for (int64_t n = 0; n < N; ++n) {
      double layer_mean = 0, layer_var = 0;
      for (int64_t c = 0; c < C; ++c) layer_mean += mean[n * C + c] / C;
      for (int64_t c = 0; c < C; ++c) layer_var += (var[n * C + c] + std::pow(mean[n * C + c] - layer_mean, 2)) / C;
      for (int64_t c = 0; c < C; ++c) {
        double m = mean[n * C + c], v = var[n * C + c];
        for (int64_t p = 0; p < P; ++p) {
          double value = x[at(n, c, p)], normal;
          if (mixes) {
            double mixed = a[0] * m + a[1] * layer_mean + a[2] * batch_mean[c];
            normal = (value - mixed) / std::sqrt(b[0] * v + b[1] * layer_var + b[2] * batch_var[c] + eps);
          } else {
            normal = gate[c] * (value - batch_mean[c]) / std::sqrt(batch_var[c] + eps) +
                     (1 - gate[c]) * (value - m) / std::sqrt(v + eps);
          }
          y[at(n, c, p)] = weight[c] * normal + bias[c];
        }
      }
    }
    return y;
  }

  double loss(const std::vector<double>& x, const std::vector<double>& dy) const {
    double total = 0;
    auto y = forward(x);
    for (size_t i = 0; i < y.size(); ++i) total += y[i] * dy[i];
    return total;
  }
};

void agree(const char* what, double found, double expected, double allowed, const Norm& norm) {
  if (std::abs(found - expected) <= allowed) return;
  const Shape& s = norm.shape;
  std::printf(
      "%s: %g, not %g (%g allowed): %s, %s, %s, %d x %d x %d\n", what, found, expected, allowed,
      norm.mixes ? "mixture" : "gates", norm.training ? "training" : "evaluation", s.rows ? "rows" : "planes", int(s.N),
      int(s.C), int(s.P));
  std::exit(1);
}

// The loss's derivative with respect to `value`, from both sides.
double derivative(double& value, const std::function<double()>& loss) {
  double before = value, step = 1e-4;
  value = before + step;
  double above = loss();
  value = before - step;
  double below = loss();
  value = before;
  return (above - below) / (2 * step);
}

std::vector<float> narrow(const std::vector<double>& values) { return {values.begin(), values.end()}; }

template <typename T>
void check(Norm norm) {
  Shape shape = norm.shape;
  int64_t N = shape.N, C = shape.C, size = N * C * shape.P;
  std::vector<T> x(size), dy(size), y(size), dx(size);
  std::vector<double> wide(size), seed(size);
  for (int64_t i = 0; i < size; ++i) {
    x[i] = rounded_to<T>(2 + 1.5 * normal()), dy[i] = rounded_to<T>(normal());
    wide[i] = value_of(x[i]), seed[i] = value_of(dy[i]);
  }
  auto weight = narrow(norm.weight), bias = narrow(norm.bias), gate = narrow(norm.gate);
  auto of_mean = narrow(norm.of_mean), of_var = narrow(norm.of_var);
  auto running_mean = narrow(norm.running_mean), running_var = narrow(norm.running_var);
  Layer layer{shape};
  layer.training = norm.training, layer.averages = {running_mean.data(), running_var.data(), 0, C};
  if (norm.mixes) {
    layer.mixture = Mixture{
        N,
        C,
        {INSTANCE, 1, BATCH},
        float(norm.eps),
        weight.data(),
        bias.data(),
        shares_of(of_mean.data(), 3),
        shares_of(of_var.data(), 3)};
  } else {
    layer.gates = Gates{N, C, float(norm.eps), weight.data(), bias.data(), gate.data()};
  }
  std::vector<float> held((2 * N + 2) * C), dweight(C), dbias(C), drho(C), dlogits(6);
  Vectors mean{held.data(), C}, var{mean[N], C};
  Statistics found{mean, var, mean[2 * N], mean[2 * N + 1]};
  Images<const T> xs{x.data(), C * shape.P}, dys{dy.data(), C * shape.P};
  Forward<T>(layer, xs, {y.data(), C * shape.P}, found, {0, C}, {norm.training, 0.1f, 1.f}).run();

  auto expected = norm.forward(wide);
  for (int64_t i = 0; i < size; ++i)
    agree("y", value_of(y[i]), expected[i], unit<T>() * std::abs(expected[i]) + 2e-5, norm);

  Backward<T> backward(layer, dys, xs, {dx.data(), C * shape.P}, found);
  if (norm.mixes)
    backward.run(Mixture::Parameters{dweight.data(), dbias.data(), &dlogits[0], &dlogits[3]});
  else
    backward.run(Gates::Parameters{dweight.data(), dbias.data(), drho.data()});
  auto loss = [&] { return norm.loss(wide, seed); };
  double sum = std::sqrt(double(N * shape.P)) * 2e-4 + 2e-4;
  for (int i = 0; i < 3; ++i) {
    int64_t place = between(0, size - 1), c = between(0, C - 1);
    double slope = derivative(wide[place], loss);
    agree("dx", value_of(dx[place]), slope, unit<T>() * std::abs(slope) + 2e-4, norm);
    agree("dweight", dweight[c], derivative(norm.weight[c], loss), sum, norm);
    agree("dbias", dbias[c], derivative(norm.bias[c], loss), sum, norm);
    if (norm.mixes) {
      agree("dmean_weight", dlogits[i], derivative(norm.of_mean[i], loss), sum * C, norm);
      agree("dvar_weight", dlogits[3 + i], derivative(norm.of_var[i], loss), sum * C, norm);
    } else {
      agree("drho", drho[c], derivative(norm.gate[c], loss), sum, norm);
    }
  }
}

Norm drawn(const Shape& shape) {
  Norm norm{shape, between(0, 1) == 1, between(0, 1) == 1, 1e-2, {}, {}, {}, {}, {}, {}, {}};
  for (int64_t c = 0; c < shape.C; ++c) {
    norm.weight.push_back(float(normal())), norm.bias.push_back(float(normal()));
    norm.gate.push_back(between(0, 3) ? float(between(0, 8)) / 8 : double(between(0, 1)));
    norm.running_mean.push_back(float(2 + normal())), norm.running_var.push_back(float(1 + std::abs(normal())));
  }
  for (int k = 0; k < 3; ++k) norm.of_mean.push_back(float(normal())), norm.of_var.push_back(float(normal()));
  return norm;
}

// Every 16-bit number becomes what its bits say, in a vector and in a part of one, and is itself again afterwards.
template <typename T>
void check_numbers(int exponent_bits) {
  int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1, special = (1 << exponent_bits) - 1;
  for (int bits = 0; bits < 65536; ++bits) {
    int exponent = (bits >> fraction_bits) & special, fraction = bits & ((1 << fraction_bits) - 1);
    double value =
        std::ldexp(exponent ? fraction + (1 << fraction_bits) : fraction, std::max(exponent, 1) - bias - fraction_bits);
    if (exponent == special) value = fraction ? NAN : INFINITY;
    if (bits & 0x8000) value = -value;
    T many[2 * W], back[2 * W];
    for (T& x : many) x.bits = bits;
    Pair pair = load(many, Both{});
    store(back, pair, Both{});
    T part[W] = {};
    store(part, load(many, Part{1}), Part{1});
    bool subnormal = exponent == 0 && std::is_same_v<T, BFloat16>;  // which some processors make zeros
    bool same = std::isnan(value) ? std::isnan(pair.b[W - 1]) : pair.a[0] == value && pair.b[W - 1] == value;
    bool kept = std::isnan(value) || subnormal ||
                (back[1].bits == bits && back[2 * W - 1].bits == bits && part[0].bits == bits);
    if (!same || !kept) std::printf("16 bits %04x are not %g\n", bits, value), std::exit(1);
  }
  for (int i = 0; i < 100000; ++i) {  // the nearest: no neighbour is nearer
    float x = float(std::ldexp(normal(), int(between(-20, 15))));
    T found = rounded_to<T>(x), above = found, below = found;
    ++above.bits, --below.bits;
    float distance = std::abs(value_of(found) - x);
    bool nearest = !(std::abs(value_of(above) - x) < distance) && !(std::abs(value_of(below) - x) < distance);
    if (!nearest && std::isfinite(value_of(found))) std::printf("%g became %g\n", x, value_of(found)), std::exit(1);
  }
}

int main(int count_of_arguments, char** arguments) {
  int64_t cases = count_of_arguments > 1 ? std::atoll(arguments[1]) : 200;
  check_numbers<BFloat16>(8);
  check_numbers<Float16>(5);
  for (int64_t i = 0; i < cases; ++i) {
    Shape shape{
        between(1, 4), between(1, 3) == 1 ? between(1, 150) : between(1, 40), between(1, 90), between(0, 1) == 1};
    if (i % 20 == 0) shape = {2, between(3, 40), between(2000, 6000), shape.rows};  // in threads and in parts
    if (i % 100 == 50) shape = {1, 70, between(12000, 13000), shape.rows};          // in pieces
    normshift::count = between(1, 5);
    Norm norm = drawn(shape);
    check<float>(norm);
    check<BFloat16>(norm);
    check<Float16>(norm);
  }
  std::printf("%d cases agree, vectors of %d floats\n", int(cases), W);
}
