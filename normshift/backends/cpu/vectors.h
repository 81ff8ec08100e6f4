// Vectors of float32, as wide as the processor's registers, and how the three types of activations become such vectors.
//
// Written in the vector extensions that GCC and Clang share, so that AVX-512, AVX2, NEON and SSE2 run the same source.
// Intrinsics stand where a processor has an instruction that compilers do not find: parts of vectors, and roundings.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pairs of bfloat16 are read as little-endian integers"
#endif

namespace normshift {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define NORMSHIFT_AVX512
constexpr int W = 16;  // floats in a vector
#elif defined(__AVX2__) && defined(__F16C__)
#define NORMSHIFT_AVX2
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * W)));
typedef uint32_t Bits __attribute__((vector_size(4 * W)));
typedef int32_t Lanes __attribute__((vector_size(4 * W)));
typedef uint16_t Halves __attribute__((vector_size(2 * W)));

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline Floats all(float value) { return value - Floats{}; }  // value in every lane; value + 0 would lose the sign of -0

// Two vectors. For bfloat16, the values at even and at odd places, which need no instruction that widens.
struct Pair {
  Floats a{}, b{};
};
inline Pair operator+(const Pair& x, const Pair& y) { return {x.a + y.a, x.b + y.b}; }
inline Pair operator-(const Pair& x, const Pair& y) { return {x.a - y.a, x.b - y.b}; }
inline Pair operator*(const Pair& x, const Pair& y) { return {x.a * y.a, x.b * y.b}; }
inline Pair operator-(const Pair& x, const Floats& y) { return {x.a - y, x.b - y}; }
inline Pair operator*(const Pair& x, const Floats& y) { return {x.a * y, x.b * y}; }
inline Pair operator+(const Pair& x, const Floats& y) { return {x.a + y, x.b + y}; }
inline Pair operator*(const Pair& x, float y) { return {x.a * y, x.b * y}; }
inline Pair operator/(const Pair& x, float y) { return {x.a / y, x.b / y}; }

inline Floats not_negative(const Floats& value) { return value < 0 ? Floats{} : value; }
inline Pair not_negative(const Pair& value) { return {not_negative(value.a), not_negative(value.b)}; }

// How many values are meant: those of two vectors, of one, or fewer at the end of a row.
struct Both {};
struct Full {};
struct Part {
  int64_t count;
};

#if defined(NORMSHIFT_AVX512)
inline __mmask16 mask(Part part) { return __mmask16((1u << part.count) - 1); }
#elif defined(NORMSHIFT_AVX2)
inline __m256i mask(Part part) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(part.count)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}
#endif

// The lanes that are meant, and zeros.
inline Pair kept(const Pair& value, Both) { return value; }
inline Floats kept(const Floats& value, Full) { return value; }
inline Floats kept(const Floats& value, Part part) {
#if defined(NORMSHIFT_AVX512)
  return _mm512_maskz_mov_ps(mask(part), value);
#elif defined(NORMSHIFT_AVX2)
  return _mm256_and_ps(value, _mm256_castsi256_ps(mask(part)));
#else
  Lanes lane;
  for (int i = 0; i < W; ++i) lane[i] = i;
  return Floats(Bits(value) & Bits(lane < int32_t(part.count)));
#endif
}

// ------------------------------------------------------------------------------------------------------------ float32

inline Floats load(const float* x, Full) {
  Floats value;
  std::memcpy(&value, x, sizeof value);
  return value;
}
inline Floats load(const float* x, Part part) {
#if defined(NORMSHIFT_AVX512)
  return _mm512_maskz_loadu_ps(mask(part), x);
#elif defined(NORMSHIFT_AVX2)
  return _mm256_maskload_ps(x, mask(part));
#else
  Floats value{};
  for (int64_t i = 0; i < part.count; ++i) value[i] = x[i];
  return value;
#endif
}
inline Pair load(const float* x, Both) { return {load(x, Full{}), load(x + W, Full{})}; }
inline void store(float* x, const Floats& value, Full) { std::memcpy(x, &value, sizeof value); }
inline void store(float* x, const Floats& value, Part part) {
#if defined(NORMSHIFT_AVX512)
  _mm512_mask_storeu_ps(x, mask(part), value);
#elif defined(NORMSHIFT_AVX2)
  _mm256_maskstore_ps(x, mask(part), value);
#else
  for (int64_t i = 0; i < part.count; ++i) x[i] = value[i];
#endif
}

inline void store(float* x, const Pair& value, Both) {
  store(x, value.a, Full{});
  store(x + W, value.b, Full{});
}

// ------------------------------------------------------------------------------------------------------ 16-bit floats

template <typename T>
inline Halves bits_of(const T* x, Full) {
  Halves bits;
  std::memcpy(&bits, x, sizeof bits);
  return bits;
}
template <typename T>
inline Halves bits_of(const T* x, Part part) {
#if defined(NORMSHIFT_AVX512)
  return Halves(_mm256_maskz_loadu_epi16(mask(part), x));
#else
  Halves bits{};
  for (int64_t i = 0; i < part.count; ++i) bits[i] = x[i].bits;
  return bits;
#endif
}
template <typename T>
inline void put_bits(T* x, const Halves& bits, Full) {
  std::memcpy(x, &bits, sizeof bits);
}
template <typename T>
inline void put_bits(T* x, const Halves& bits, Part part) {
#if defined(NORMSHIFT_AVX512)
  _mm256_mask_storeu_epi16(x, mask(part), __m256i(bits));
#else
  for (int64_t i = 0; i < part.count; ++i) x[i].bits = bits[i];
#endif
}

inline Floats widened(const Halves& bits, BFloat16) { return Floats(__builtin_convertvector(bits, Bits) << 16); }
inline Floats widened(const Halves& bits, Float16) {
#if defined(NORMSHIFT_AVX512)
  return _mm512_cvtph_ps(__m256i(bits));
#elif defined(NORMSHIFT_AVX2)
  return _mm256_cvtph_ps(__m128i(bits));
#elif defined(__aarch64__)
  return vcvt_f32_f16(vreinterpret_f16_u16(uint16x4_t(bits)));
#else
  // Scaled by 2^112, what float32 calls a subnormal has float16's exponent; infinities and NaNs keep their fractions.
  Bits wide = __builtin_convertvector(bits, Bits), sign = (wide & 0x8000) << 16, rest = (wide & 0x7fff) << 13;
  Bits special = Bits(rest >= (0x7c00u << 13)), number = Bits(Floats(rest) * 0x1p112f);
  return Floats(sign | (special & (rest | 0x7f800000)) | (number & ~special));
#endif
}

// In the upper half of each lane, rounded to the nearest bfloat16, to the even one where two are as near.
inline Bits rounded(const Floats& value) {
  Bits bits = Bits(value), number = Bits(value == value);
  return ((bits + 0x7fff + ((bits >> 16) & 1)) & number) | (0x7fc00000 & ~number);
}
inline Halves narrowed(const Floats& value, BFloat16) {
#if defined(NORMSHIFT_AVX512) && defined(__AVX512BF16__)  // which makes values below 1.2e-38 zeros
  return Halves(_mm512_cvtneps_pbh(value));
#else
  return __builtin_convertvector(rounded(value) >> 16, Halves);
#endif
}
inline Halves narrowed(const Floats& value, Float16) {
#if defined(NORMSHIFT_AVX512)
  return Halves(_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(NORMSHIFT_AVX2)
  return Halves(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__aarch64__)
  return Halves(vreinterpret_u16_f16(vcvt_f16_f32(value)));
#else
  // Below 2^-14 adding a half leaves float16's subnormal in the last bits; above, the exponent is moved and rounded.
  Bits bits = Bits(value), sign = bits & 0x80000000, rest = bits ^ sign;
  Bits small = Bits(Floats(rest) + 0.5f) - 0x3f000000, normal = (rest + 0xc8000fff + ((rest >> 13) & 1)) >> 13;
  Bits is_small = Bits(rest < 0x38800000u), is_large = Bits(rest >= 0x47800000u), is_nan = Bits(rest > 0x7f800000u);
  Bits found = (is_small & small) | (~is_small & normal);
  found = (is_large & ((is_nan & 0x7e00) | (~is_nan & 0x7c00))) | (~is_large & found);
  return __builtin_convertvector(found | (sign >> 16), Halves);
#endif
}

template <typename T, typename Count>
inline Floats load(const T* x, Count count) {
  return widened(bits_of(x, count), T{});
}
template <typename T, typename Count>
inline void store(T* x, const Floats& value, Count count) {
  put_bits(x, narrowed(value, T{}), count);
}

inline Pair load(const Float16* x, Both) { return {load(x, Full{}), load(x + W, Full{})}; }
inline void store(Float16* x, const Pair& value, Both) {
  store(x, value.a, Full{});
  store(x + W, value.b, Full{});
}

// The first of two bfloat16 is the lower half of 32 bits.
inline Pair load(const BFloat16* x, Both) {
  Bits bits;
  std::memcpy(&bits, x, sizeof bits);
  return {Floats(bits << 16), Floats(bits & 0xffff0000)};
}
inline void store(BFloat16* x, const Pair& value, Both) {
#if defined(NORMSHIFT_AVX512) && defined(__AVX512BF16__)
  __m512i halves = __m512i(_mm512_cvtne2ps_pbh(value.b, value.a)),
          order = _mm512_set_epi16(
              31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
              17, 1, 16, 0);
  halves = _mm512_permutexvar_epi16(order, halves);
  std::memcpy(x, &halves, sizeof halves);
#else
  Bits bits = (rounded(value.a) >> 16) | (rounded(value.b) & 0xffff0000);
  std::memcpy(x, &bits, sizeof bits);
#endif
}

// Floats for the values that `load` reads from a T at the same place, in the same lanes.
template <typename T, typename Count>
inline auto load_for(const float* x, Count count) {
  return load(x, count);
}
template <typename T, typename Value, typename Count>
inline void store_for(float* x, const Value& value, Count count) {
  store(x, value, count);
}

template <>
inline auto load_for<BFloat16, Both>(const float* x, Both) {
  Floats a = load(x, Full{}), b = load(x + W, Full{});
#if defined(NORMSHIFT_AVX512)
  __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return Pair{_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)};
#else
  Pair found;
  for (int i = 0; i < W / 2; ++i) {
    found.a[i] = a[2 * i], found.b[i] = a[2 * i + 1];
    found.a[W / 2 + i] = b[2 * i], found.b[W / 2 + i] = b[2 * i + 1];
  }
  return found;
#endif
}
template <>
inline void store_for<BFloat16, Pair, Both>(float* x, const Pair& value, Both) {
  Floats low, high;
#if defined(NORMSHIFT_AVX512)
  __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  __m512i last = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  low = _mm512_permutex2var_ps(value.a, first, value.b), high = _mm512_permutex2var_ps(value.a, last, value.b);
#else
  for (int i = 0; i < W / 2; ++i) {
    low[2 * i] = value.a[i], low[2 * i + 1] = value.b[i];
    high[2 * i] = value.a[W / 2 + i], high[2 * i + 1] = value.b[W / 2 + i];
  }
#endif
  store(x, low, Full{}), store(x + W, high, Full{});
}

// ------------------------------------------------------------------------------------------------------- many vectors

// The sum of all lanes, always in the same order.
inline float sum(const Floats& value) {
#if defined(NORMSHIFT_AVX512)
  return _mm512_reduce_add_ps(value);
#else
  float lanes[W];
  std::memcpy(lanes, &value, sizeof lanes);
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
#endif
}

inline float sum(const Pair& value) { return sum(value.a + value.b); }
inline Floats folded(const Pair& value) { return value.a + value.b; }
inline Floats folded(const Floats& value) { return value; }

#if defined(NORMSHIFT_AVX512)
// The sums of W vectors, in the lanes of one: the same additions as `sum`'s, for all vectors at once.
inline Floats sums(Floats (&values)[W]) {
  const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
#pragma GCC unroll 4
  for (int half = W / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      Floats a = values[i], b = values[i + half];
      values[i] = _mm512_permutex2var_ps(a, low, b) + _mm512_permutex2var_ps(a, high, b);
    }
  return values[0];
}
#else
inline Floats sums(Floats (&values)[W]) {
  Floats found;
  for (int i = 0; i < W; ++i) found[i] = sum(values[i]);
  return found;
}
#endif

inline void add(Pair& total, const Pair& value) { total = total + value; }
inline void add(Pair& total, const Floats& value) { total.a += value; }

// f(position, Both, Full or Part, k) for all of `length` values. k < U changes from pair to pair where there are many,
// so that sums can go on in several registers: one would wait for itself.
template <int U, typename F>
inline void each_pair(int64_t length, const F& f) {
  int64_t i = 0;
  for (; i + 2 * U * W <= length; i += 2 * U * W)
#pragma GCC unroll 4
    for (int k = 0; k < U; ++k) f(i + 2 * k * W, Both{}, k);
  for (; i + 2 * W <= length; i += 2 * W) f(i, Both{}, 0);
  if (i + W <= length) f(i, Full{}, 0), i += W;
  if (i < length) f(i, Part{length - i}, U - 1);
}

// f(position, Full or Part) for every vector of `length` values.
template <typename F>
inline void each_vector(int64_t length, const F& f) {
  int64_t i = 0;
  for (; i + W <= length; i += W) f(i, Full{});
  if (i < length) f(i, Part{length - i});
}

// A value past the caches, to memory that is aligned: a cache would first read what is about to be overwritten.
inline void stream(float* x, const Floats& value) {
#if defined(NORMSHIFT_AVX512)
  _mm512_stream_ps(x, value);
#elif defined(NORMSHIFT_AVX2)
  _mm256_stream_ps(x, value);
#else
  store(x, value, Full{});
#endif
}

inline void stream(float* x, const Pair& value) {
  stream(x, value.a);
  stream(x + W, value.b);
}

// Before other threads read what this one has streamed.
inline void fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace normshift
