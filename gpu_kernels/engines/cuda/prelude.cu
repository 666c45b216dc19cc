// What the generated kernels stand on: tuples for functions with several results, and the primitives that CUDA
// does not have under the meaning that the formulas rely on. No header is needed, so NVRTC finds everything here.

namespace STD {

template <typename... T>
struct tuple;

template <typename T>
struct tuple<T> {
  T head;
};

template <typename T, typename... Rest>
struct tuple<T, Rest...> {
  T head;
  tuple<Rest...> tail;
};

template <typename A, typename B>
using pair = tuple<A, B>;

template <int I, typename... T>
__device__ __forceinline__ auto get(const tuple<T...>& all) {
  if constexpr (I == 0) {
    return all.head;
  } else {
    return get<I - 1>(all.tail);
  }
}

template <typename T>
__device__ __forceinline__ tuple<T> make_tuple(T one) {
  return tuple<T>{one};
}

template <typename T, typename... Rest>
__device__ __forceinline__ tuple<T, Rest...> make_tuple(T one, Rest... rest) {
  return tuple<T, Rest...>{one, make_tuple(rest...)};
}

template <typename A, typename B>
__device__ __forceinline__ tuple<A, B> make_pair(A one, B other) {
  return make_tuple(one, other);
}

}  // namespace STD

__device__ __forceinline__ double not_a_number() {
  return __longlong_as_double(0x7ff8000000000000LL);
}

// False comparisons give the second operand: NaN goes the same way as in the other engines.
__device__ __forceinline__ double smaller(double a, double b) {
  return a < b ? a : b;
}

__device__ __forceinline__ double larger(double a, double b) {
  return a > b ? a : b;
}

// a scaled by the power of two that brings it within a factor 2^0.59 of b, and that power. Both are normal numbers.
__device__ __forceinline__ STD::pair<double, double> nearest_power(double a, double b) {
  const long long n = (__double_as_longlong(a) - __double_as_longlong(b) + (1LL << 51)) >> 52;
  return STD::make_pair(__longlong_as_double(__double_as_longlong(a) - (n << 52)), (double)(int)n);
}

// (2 atanh(u) - 2u) / u^3 as a function of v = u^2 up to 0.0402; what is left out is below 2e-17 of log.
__device__ __forceinline__ double atanh_series(double v) {
  double p = 0.13614059585772761;
  p = fma(p, v, 0.13209052444000552);
  p = fma(p, v, 0.15388901197185678);
  p = fma(p, v, 0.18181736789201602);
  p = fma(p, v, 0.22222223059033036);
  p = fma(p, v, 0.285714285672117);
  p = fma(p, v, 0.40000000000008085);
  return fma(p, v, 0.6666666666666666);
}

// ln 2 in two parts; the first has 21 trailing zero bits, so that its product with an exponent is exact.
#define LN2_HIGH 0.6931471803691238
#define LN2_LOW 1.9082149292705877e-10

// e^x - 1 as a float64 and what that leaves of it: 56 bits of the larger of 1 and e^x. Down to e^-708 and up to e^709.
__device__ __forceinline__ STD::pair<double, double> expm1_as_parts(double x) {
  const double clamped = fmin(fmax(x, -708.0), 709.0);
  const double n = rint(clamped * 1.4426950408889634);
  const double whole = fma(-n, LN2_HIGH, clamped);
  const double r = fma(-n, LN2_LOW, whole);
  const double r_low = fma(-n, LN2_LOW, whole - r);
  const double r2 = r * r;
  const double r2_low = fma(r, r, -r2);
  double p = 2.510038549551032e-08;
  p = fma(p, r, 2.7620088445409746e-07);
  p = fma(p, r, 2.7557268459997064e-06);
  p = fma(p, r, 2.4801521295954376e-05);
  p = fma(p, r, 0.00019841269863053618);
  p = fma(p, r, 0.0013888888917213717);
  p = fma(p, r, 0.008333333333330062);
  p = fma(p, r, 0.04166666666662413);
  p = fma(p, r, 0.16666666666666669);
  p = fma(p, r, 1.1102230246251565e-16);
  const double half = 0.5 * r2;
  const double m = r + half;
  const double m_low = (half - (m - r)) + fma(r2, p, fma(0.5, r2_low, r_low * (1.0 + m)));
  const double scale = __longlong_as_double(((long long)n + 1023LL) << 52);
  const double moved = scale - 1.0;
  const double grown = scale * m;
  const double total = moved + grown;
  const double back = total - moved;
  const double total_low = fma(scale, m_low, (moved - (total - back)) + (grown - back));
  const double result = total + total_low;
  return STD::make_pair(result, total_low - (result - total));
}

// log(a/b): the difference of the scaled a and b is exact, and log is 2 atanh of difference over sum. Shorter than
// CUDA's log, and accurate where a is close to b.
__device__ __forceinline__ double log_of_ratio(double a, double b) {
  const STD::pair<double, double> parts = nearest_power(a, b);
  const double near = STD::get<0>(parts);
  const double n = STD::get<1>(parts);
  const double u = (near - b) / (near + b);
  const double v = u * u;
  return fma(n, LN2_HIGH, 2.0 * u + fma(n, LN2_LOW, u * (v * atanh_series(v))));
}

// log(a/b) as a float64 and what that leaves of it: about 70 bits. Sums carry their rounding errors along.
__device__ __forceinline__ STD::pair<double, double> log_of_ratio_parts(double a, double b) {
  const STD::pair<double, double> parts = nearest_power(a, b);
  const double near = STD::get<0>(parts);
  const double n = STD::get<1>(parts);
  const double difference = near - b;
  const double total = near + b;
  const double b_part = total - near;
  const double total_low = (near - (total - b_part)) + (b - b_part);
  const double u = difference / total;
  const double u_low = (fma(-u, total, difference) - u * total_low) / total;
  const double v = u * u;
  const double whole = n * LN2_HIGH;
  const double high = whole + 2.0 * u;
  const double back = high - whole;
  double low = (whole - (high - back)) + (2.0 * u - back);
  low += n * LN2_LOW + (u * (v * atanh_series(v)) + 2.0 * u_low);
  const double result = high + low;
  return STD::make_pair(result, low - (result - high));
}
