// What torch calls: the passes, the formulas and whole layers as operators.
//
// Against torch's stable ABI, so that one library serves every version of torch from TORCH_TARGET_VERSION on.

#include <optional>
#include <tuple>
#include <vector>

#include "layer.h"
#include "tensors.h"

namespace normshift {

void in_threads(int64_t begin, int64_t end, int64_t grain, void (*work)(int64_t, int64_t, void*), void* context) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, work, context));
}

int64_t threads() { return torch::stable::get_num_threads(); }

}  // namespace normshift

namespace {

using namespace normshift;

// ------------------------------------------------------------------------------------------------------------- passes

std::tuple<Tensor, Tensor> moments_(Tensor x) {
  Shape shape = shape_and_layout(x);
  Tensor mean = vectors(shape), var = vectors(shape);
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    moments(shape, read<T>(x), 0, shape.C, vectors_in(mean, shape), vectors_in(var, shape));
  });
  return {mean, var};
}

Tensor scale_shift_(Tensor x, Tensor mean, Tensor scale, Tensor shift) {
  Shape shape = shape_and_layout(x);
  int64_t values = shape.N * shape.C;
  Input means(mean, values), scales(scale, values), shifts(shift, values);
  Tensor y = output(x, shape);
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    scale_shift(
        shape, read<T>(x), means.vectors(shape.C), scales.vectors(shape.C), shifts.vectors(shape.C), written<T>(y), 2);
  });
  return y;
}

std::tuple<Tensor, Tensor> reductions_(Tensor dy, Tensor x, Tensor mean) {
  Shape shape = shape_and_layout(x);
  Input means(mean, shape.N * shape.C);
  Tensor same = like(dy, x, shape), dshift = vectors(shape), dscale = vectors(shape);
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    reductions(
        shape, read<T>(same), read<T>(x), means.vectors(shape.C), vectors_in(dshift, shape), vectors_in(dscale, shape));
  });
  return {dshift, dscale};
}

Tensor input_gradient_(Tensor dy, Tensor x, Tensor mean, Tensor scale, Tensor slope, Tensor offset) {
  Shape shape = shape_and_layout(x);
  int64_t values = shape.N * shape.C, C = shape.C;
  Input means(mean, values), scales(scale, values), slopes(slope, values), offsets(offset, values);
  Tensor same = like(dy, x, shape), dx = output(x, shape);
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    input_gradient(
        shape, read<T>(same), read<T>(x), means.vectors(C), scales.vectors(C), slopes.vectors(C), offsets.vectors(C),
        written<T>(dx));
  });
  return dx;
}

// ----------------------------------------------------------------------------------------------------------- formulas

// Each image's statistics and the batch's, as tensors.
struct Given {
  int64_t N, C;
  Input mean, var, batch_mean, batch_var;

  Given(const Tensor& means, const Tensor& vars, const Maybe& batch_means, const Maybe& batch_vars)
      : N(means.size(0)),
        C(means.size(1)),
        mean(means, N * C),
        var(vars, N * C),
        batch_mean(batch_means, C),
        batch_var(batch_vars, C) {}
  Statistics statistics() const {
    return {mean.vectors(C), var.vectors(C), const_cast<float*>(batch_mean.data), const_cast<float*>(batch_var.data)};
  }
};

Mixture mixture_of(
    int64_t N, int64_t C, const Integers& statistics, double eps, const float* weight, const float* bias,
    const float* mean_logits, const float* var_logits, bool has_batch) {
  for (int64_t statistic : statistics) {
    bool known = statistic == INSTANCE || (statistic == BATCH && has_batch) || (statistic > 0 && C % statistic == 0);
    STD_TORCH_CHECK(known, "normshift: no statistic ", statistic, " of ", C, " channels");
  }
  size_t count = statistics.size();
  return {N, C, statistics, float(eps), weight, bias, shares_of(mean_logits, count), shares_of(var_logits, count)};
}

// A vector of all channels from its parts, one or two.
struct Whole {
  std::vector<Input> parts;
  std::vector<float> joined;
  const float* data = nullptr;

  Whole(const std::vector<Tensor>& tensors, int64_t C) {
    int64_t first = tensors.size() == 1 ? C : std::min(tensors[0].numel(), C), sizes[2] = {first, C - first};
    for (size_t i = 0; i < tensors.size(); ++i) parts.emplace_back(tensors[i], sizes[i]);
    data = parts[0].data;
    if (tensors.size() == 1) return;
    joined.resize(C);
    std::copy_n(parts[1].data, C - first, std::copy_n(parts[0].data, first, joined.begin()));
    data = joined.data();
  }
};

// The gates of C channels: `rho`, or 1 from `first` to `last` and 0 elsewhere.
std::vector<float> gates_of(const float* rho, int64_t C, int64_t first, int64_t last) {
  if (rho) return {rho, rho + C};
  std::vector<float> gate(C);
  for (int64_t c = 0; c < C; ++c) gate[c] = c >= first && c < last;
  return gate;
}

std::tuple<Tensor, Tensor> pooled_(Tensor mean, Tensor var) {
  Given given(mean, var, std::nullopt, std::nullopt);
  Tensor batch_mean = floats({given.C}), batch_var = floats({given.C});
  Statistics of = given.statistics();
  of.batch_mean = data_of(batch_mean), of.batch_var = data_of(batch_var);
  each_columns(given.N, given.C, [&](Columns columns) { pool(of, given.N, columns); });
  return {batch_mean, batch_var};
}

void update_running_(
    Tensor running_mean, Tensor running_var, Tensor mean, Tensor var, double momentum, double unbiased) {
  int64_t C = mean.numel();
  Input means(mean, C), vars(var, C);
  Averages averages{changed(running_mean, C), changed(running_var, C), 0, C};
  Statistics by{{}, {}, const_cast<float*>(means.data), const_cast<float*>(vars.data)};
  averages.update(by, {0, C}, float(momentum), float(unbiased));
}

std::tuple<Tensor, Tensor> mixed_(
    Tensor mean, Tensor var, Maybe batch_mean, Maybe batch_var, Tensor weight, Tensor bias, Maybe mean_weight,
    Maybe var_weight, Integers statistics, double eps) {
  Given given(mean, var, batch_mean, batch_var);
  int64_t N = given.N, C = given.C, K = statistics.size();
  Input weights(weight, C), biases(bias, C), mean_logits(mean_weight, K), var_logits(var_weight, K);
  Mixture mixture = mixture_of(
      N, C, statistics, eps, weights.data, biases.data, mean_logits.data, var_logits.data, given.batch_mean.data);
  Tensor scale = floats({N, C}), shift = floats({N, C});
  each_rows(N, C, [&](int64_t begin, int64_t end) {
    mixture.evaluate(given.statistics(), {begin, end}, {data_of(scale), C}, {data_of(shift), C});
  });
  return {scale, shift};
}

// Gradients with respect to mean, var, batch_mean, batch_var, weight, bias, mean_weight and var_weight.
std::vector<Tensor> mixed_gradient_(
    Tensor mean, Tensor var, Maybe batch_mean, Maybe batch_var, Tensor weight, Tensor bias, Maybe mean_weight,
    Maybe var_weight, Integers statistics, double eps, Tensor dscale, Tensor dshift) {
  Given given(mean, var, batch_mean, batch_var);
  int64_t N = given.N, C = given.C, K = statistics.size();
  Input weights(weight, C), biases(bias, C), mean_logits(mean_weight, K), var_logits(var_weight, K);
  Input dscales(dscale, N * C), dshifts(dshift, N * C);
  Mixture mixture = mixture_of(
      N, C, statistics, eps, weights.data, biases.data, mean_logits.data, var_logits.data, given.batch_mean.data);
  std::vector<Tensor> found{floats({N, C}), floats({N, C}), floats({C}), floats({C}),
                            floats({C}),    floats({C}),    floats({K}), floats({K})};
  Space scale(N, C);
  Gradients by{dscales.vectors(C),     dshifts.vectors(C), {data_of(found[0]), C},
               {data_of(found[1]), C}, data_of(found[2]),  data_of(found[3])};
  mixture.gradient(
      given.statistics(), by, scale.vectors(N),
      {data_of(found[4]), data_of(found[5]), data_of(found[6]), data_of(found[7])});
  return found;
}

std::tuple<Tensor, Tensor> gated_(
    Tensor mean, Tensor var, Tensor batch_mean, Tensor batch_var, std::vector<Tensor> weight, std::vector<Tensor> bias,
    Maybe rho, int64_t first, int64_t last, double eps) {
  Given given(mean, var, batch_mean, batch_var);
  int64_t N = given.N, C = given.C;
  Whole weights(weight, C), biases(bias, C);
  std::vector<float> gate = gates_of(Input(rho, C).data, C, first, last);
  Gates gates{N, C, float(eps), weights.data, biases.data, gate.data()};
  Tensor scale = floats({N, C}), shift = floats({N, C});
  each_columns(N, C, [&](Columns columns) {
    gates.evaluate(given.statistics(), {0, N}, columns, {data_of(scale), C}, {data_of(shift), C});
  });
  return {scale, shift};
}

// Gradients with respect to mean, var, batch_mean, batch_var, weight, bias and rho.
std::vector<Tensor> gated_gradient_(
    Tensor mean, Tensor var, Tensor batch_mean, Tensor batch_var, std::vector<Tensor> weight, std::vector<Tensor> bias,
    Maybe rho, int64_t first, int64_t last, double eps, Tensor dscale, Tensor dshift) {
  Given given(mean, var, batch_mean, batch_var);
  int64_t N = given.N, C = given.C;
  Whole weights(weight, C), biases(bias, C);
  Input dscales(dscale, N * C), dshifts(dshift, N * C);
  std::vector<float> gate = gates_of(Input(rho, C).data, C, first, last);
  Gates gates{N, C, float(eps), weights.data, biases.data, gate.data()};
  std::vector<Tensor> found{floats({N, C}), floats({N, C}), floats({C}), floats({C}),
                            floats({C}),    floats({C}),    floats({C})};
  Space space(N, C);
  Vectors scale = space.vectors(N);
  Gradients by{dscales.vectors(C),     dshifts.vectors(C), {data_of(found[0]), C},
               {data_of(found[1]), C}, data_of(found[2]),  data_of(found[3])};
  each_columns(N, C, [&](Columns columns) {
    gates.gradient(given.statistics(), by, columns, scale, {data_of(found[4]), data_of(found[5]), data_of(found[6])});
  });
  return found;
}

std::tuple<Tensor, Tensor> through_moments_(
    Tensor mean, Tensor scale, Tensor dshift, Tensor dmean, Tensor dvar, Maybe batch_mean, Maybe dbatch_mean,
    Maybe dbatch_var, double share, double of_mean, double of_var) {
  Given given(mean, scale, batch_mean, std::nullopt);  // the variances are not looked at
  int64_t N = given.N, C = given.C;
  Input scales(scale, N * C), dshifts(dshift, N * C), dmeans(dmean, N * C), dvars(dvar, N * C);
  Input by_mean(dbatch_mean, C), by_var(dbatch_var, C);
  Gradients by{
      {},
      dshifts.vectors(C),
      dmeans.vectors(C),
      dvars.vectors(C),
      const_cast<float*>(by_mean.data),
      const_cast<float*>(by_var.data)};
  Derivatives derivatives{float(of_mean), float(of_var), batch_mean ? float(share) : 0.f};
  Tensor slope = floats({N, C}), offset = floats({N, C});
  each_rows(N, C, [&](int64_t begin, int64_t end) {
    through_moments(
        given.statistics(), by, derivatives, {begin, end}, {0, C}, scales.vectors(C), {data_of(slope), C},
        {data_of(offset), C});
  });
  return {slope, offset};
}

// ------------------------------------------------------------------------------------------------------- whole layers

// A layer from an operator's arguments: a mixture of `statistics`, or without those gates. The channels first..last use
// the batch. Parameters are weight and bias, and for a mixture the logits of both, for gates rho; or weight and bias of
// the first and of the other channels.
struct Described {
  Layer layer;
  std::vector<Input> held;
  std::vector<float> gate, weights, biases;
  std::vector<int64_t> sizes;  // of the parameters

  Described(
      const Shape& shape, const std::vector<Tensor>& parameters, const Integers& statistics, int64_t first,
      int64_t last, double eps, bool training, int64_t correction) {
    int64_t N = shape.N, C = shape.C, K = statistics.size();
    bool halves = !K && parameters.size() == 4;
    int64_t half = halves ? std::min(parameters[0].numel(), C) : C, second = K ? K : halves ? C - half : C;
    for (size_t i = 0; i < parameters.size(); ++i) {
      sizes.push_back(i < 2 ? half : second);
      held.emplace_back(parameters[i], sizes.back());
    }
    layer.shape = shape, layer.training = training, layer.correction = correction;
    layer.averages.first = std::min(first, C), layer.averages.last = std::min(last, C);
    const float *weight = held[0].data, *bias = held[1].data;
    auto logits = [&](size_t i) { return held.size() > i ? held[i].data : nullptr; };
    if (K) {
      layer.mixture = mixture_of(
          N, C, statistics, eps, weight, bias, logits(2), logits(3), layer.averages.first < layer.averages.last);
      return;
    }
    if (halves) {
      weights = joined(0, 2), biases = joined(1, 3);
      weight = weights.data(), bias = biases.data();
    }
    gate = gates_of(halves ? nullptr : logits(2), C, first, last);
    layer.gates = Gates{N, C, float(eps), weight, bias, gate.data()};
  }

  // The channels whose own moments the layer needs, as far as they lie side by side. Learned gates need all, closed or
  // not, so that their gradient has them and evaluation does not depend on whether there is to be a gradient.
  Columns own() const {
    int64_t C = layer.shape.C;
    bool batch_alone = layer.mixture && layer.mixture->statistics == Integers{BATCH};
    if (batch_alone && !layer.training) return {0, 0};
    if (layer.training || layer.mixture || sizes.size() == 3) return {0, C};
    int64_t begin = 0, end = C;
    while (begin < end && gate[begin] == 1) ++begin;
    while (begin < end && gate[end - 1] == 1) --end;
    return {begin, end};
  }

 private:
  std::vector<float> joined(size_t a, size_t b) const {
    std::vector<float> all(held[a].data, held[a].data + sizes[a]);
    all.insert(all.end(), held[b].data, held[b].data + sizes[b]);
    return all;
  }
};

// Where a layer's statistics lie in one tensor, (2 N + 2, C): means, variances, the batch's mean and variance.
Statistics in_one(const Tensor& tensor, const Shape& shape) {
  Vectors mean = vectors_in(tensor, shape), var{mean[shape.N], shape.C};
  return {mean, var, mean[2 * shape.N], mean[2 * shape.N + 1]};
}

// y, and the statistics for the backward pass.
std::tuple<Tensor, Tensor> layer_(
    Tensor x, std::vector<Tensor> parameters, Maybe running_mean, Maybe running_var, Maybe batches, Integers statistics,
    int64_t first, int64_t last, double eps, std::optional<double> momentum, bool training, bool observe,
    int64_t correction) {
  Shape shape = shape_and_layout(x);
  Described described(shape, parameters, statistics, first, last, eps, training, correction);
  Layer& layer = described.layer;
  int64_t channels = layer.averages.last - layer.averages.first;
  layer.averages.mean = changed(running_mean, channels), layer.averages.var = changed(running_var, channels);
  Observation observation{training && observe && running_mean};
  if (observation.wanted) {
    float count = float(shape.N * shape.P);
    observation.unbiased = correction ? 1.f : count / std::max(count - 1.f, 1.f);
    int64_t seen = 1;
    if (batches) {
      bool number = batches->scalar_type() == ScalarType::Long && batches->numel() == 1;
      STD_TORCH_CHECK(number, "normshift: the number of batches is one int64");
      seen = ++*static_cast<int64_t*>(batches->mutable_data_ptr());
    }
    observation.momentum = momentum ? float(*momentum) : 1.f / float(seen);
  }
  Tensor y = output(x, shape), found = floats({2 * shape.N + 2, shape.C});
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Forward<T>(layer, read<T>(x), written<T>(y), in_one(found, shape), described.own(), observation).run();
  });
  return {y, found};
}

// Gradients with respect to the parameters and, if `of_x`, to x.
std::vector<Tensor> layer_gradient_(
    Tensor dy, Tensor x, Tensor found, std::vector<Tensor> parameters, Integers statistics, int64_t first, int64_t last,
    double eps, bool training, int64_t correction, bool of_x) {
  Shape shape = shape_and_layout(x);
  Described described(shape, parameters, statistics, first, last, eps, training, correction);
  Tensor same = like(dy, x, shape);
  std::vector<Tensor> gradients;
  for (int64_t size : described.sizes) gradients.push_back(floats({size}));
  auto of = [&](size_t i) { return gradients.size() > i ? data_of(gradients[i]) : nullptr; };
  bool halves = !described.layer.mixture && gradients.size() == 4;
  std::vector<float> weights(halves ? shape.C : 0), biases(weights.size());
  if (of_x) gradients.push_back(output(x, shape));
  by_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Images<T> dx = of_x ? written<T>(gradients.back()) : Images<T>{};
    Backward<T> backward(described.layer, read<T>(same), read<T>(x), dx, in_one(found, shape));
    bool logits = described.sizes.size() == 4, rho = described.sizes.size() == 3;
    if (halves)
      backward.run(Gates::Parameters{weights.data(), biases.data(), nullptr});
    else if (described.layer.gates)
      backward.run(Gates::Parameters{of(0), of(1), rho ? of(2) : nullptr});
    else
      backward.run(Mixture::Parameters{of(0), of(1), logits ? of(2) : nullptr, logits ? of(3) : nullptr});
  });
  if (halves) {
    int64_t half = described.sizes[0];
    for (size_t i = 0; i < 4; ++i) {
      const float* whole = (i % 2 ? biases : weights).data() + (i < 2 ? 0 : half);
      std::copy_n(whole, described.sizes[i], of(i));
    }
  }
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY(normshift_cpu, library) {
  library.def("moments(Tensor x) -> (Tensor, Tensor)");
  library.def("scale_shift(Tensor x, Tensor mean, Tensor scale, Tensor shift) -> Tensor");
  library.def("reductions(Tensor dy, Tensor x, Tensor mean) -> (Tensor, Tensor)");
  library.def("input_gradient(Tensor dy, Tensor x, Tensor mean, Tensor scale, Tensor slope, Tensor offset) -> Tensor");
  library.def("pooled(Tensor mean, Tensor var) -> (Tensor, Tensor)");
  library.def(
      "update_running(Tensor(a!) running_mean, Tensor(b!) running_var, Tensor mean, Tensor var, float momentum, "
      "float unbiased) -> ()");
  library.def(
      "mixed(Tensor mean, Tensor var, Tensor? batch_mean, Tensor? batch_var, Tensor weight, Tensor bias, Tensor? "
      "mean_weight, Tensor? var_weight, int[] statistics, float eps) -> (Tensor, Tensor)");
  library.def(
      "mixed_gradient(Tensor mean, Tensor var, Tensor? batch_mean, Tensor? batch_var, Tensor weight, Tensor bias, "
      "Tensor? mean_weight, Tensor? var_weight, int[] statistics, float eps, Tensor dscale, Tensor dshift) -> "
      "Tensor[]");
  library.def(
      "gated(Tensor mean, Tensor var, Tensor batch_mean, Tensor batch_var, Tensor[] weight, Tensor[] bias, Tensor? "
      "rho, "
      "int first, int last, float eps) -> (Tensor, Tensor)");
  library.def(
      "gated_gradient(Tensor mean, Tensor var, Tensor batch_mean, Tensor batch_var, Tensor[] weight, Tensor[] bias, "
      "Tensor? rho, int first, int last, float eps, Tensor dscale, Tensor dshift) -> Tensor[]");
  library.def(
      "through_moments(Tensor mean, Tensor scale, Tensor dshift, Tensor dmean, Tensor dvar, Tensor? batch_mean, "
      "Tensor? dbatch_mean, Tensor? dbatch_var, float share, float of_mean, float of_var) -> (Tensor, Tensor)");
  library.def(
      "layer(Tensor x, Tensor[] parameters, Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor(c!)? batches, "
      "int[] statistics, int first, int last, float eps, float? momentum, bool training, bool observe, int "
      "correction) -> (Tensor, Tensor)");
  library.def(
      "layer_gradient(Tensor dy, Tensor x, Tensor found, Tensor[] parameters, int[] statistics, int first, int last, "
      "float eps, bool training, int correction, bool of_x) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(normshift_cpu, CPU, library) {
  library.impl("moments", TORCH_BOX(&moments_));
  library.impl("scale_shift", TORCH_BOX(&scale_shift_));
  library.impl("reductions", TORCH_BOX(&reductions_));
  library.impl("input_gradient", TORCH_BOX(&input_gradient_));
  library.impl("pooled", TORCH_BOX(&pooled_));
  library.impl("update_running", TORCH_BOX(&update_running_));
  library.impl("mixed", TORCH_BOX(&mixed_));
  library.impl("mixed_gradient", TORCH_BOX(&mixed_gradient_));
  library.impl("gated", TORCH_BOX(&gated_));
  library.impl("gated_gradient", TORCH_BOX(&gated_gradient_));
  library.impl("through_moments", TORCH_BOX(&through_moments_));
  library.impl("layer", TORCH_BOX(&layer_));
  library.impl("layer_gradient", TORCH_BOX(&layer_gradient_));
}
