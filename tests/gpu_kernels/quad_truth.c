// European values from the textbook formula in 113-bit arithmetic, for searches over millions of options.
#include <quadmath.h>

typedef __float128 quad;
enum { PRICE, DELTA, GAMMA, VEGA, THETA, RHO, VANNA, VOLGA, CHARM, VALUES };

static quad cdf(quad z) { return erfcq(-z * 0.707106781186547524400844362104849039284835938Q) * 0.5Q; }

static quad pdf(quad z) { return expq(-z * z * 0.5Q) * 0.398942280401432677939946059934381868475858631Q; }

// Price and Greeks, and the scale of each: the sum of the sizes of its terms.
static void values(quad S, quad K, quad T, quad v, quad r, quad q, int call, quad *out, quad *scale) {
  const quad root = sqrtq(T), total = v * root, sign = call ? 1 : -1;
  const quad d1 = (logq(S / K) + (r - q) * T) / total + total / 2, d2 = d1 - total;
  const quad spot_discount = expq(-q * T), strike_discount = expq(-r * T);
  const quad n1 = cdf(sign * d1), n2 = cdf(sign * d2), density = spot_discount * pdf(d1);
  const quad spot_leg = S * spot_discount * n1, strike_leg = K * strike_discount * n2;
  const quad vega = S * density * root, decay = S * density * v / (2 * root);
  const quad slope = (r - q) / total, other_slope = d2 / (2 * T), size = fabsq(d1) + total;
  out[PRICE] = sign * (spot_leg - strike_leg);
  out[DELTA] = sign * spot_discount * n1;
  out[GAMMA] = density / (S * total);
  out[VEGA] = vega;
  out[THETA] = -decay + sign * (q * spot_leg - r * strike_leg);
  out[RHO] = sign * T * strike_leg;
  out[VANNA] = -density * d2 / v;
  out[VOLGA] = vega * d1 * d2 / v;
  out[CHARM] = sign * q * spot_discount * n1 - density * (slope - other_slope);
  for (int i = 0; i < VALUES; i++) scale[i] = fabsq(out[i]);
  scale[THETA] = decay + fabsq(q * spot_leg) + fabsq(r * strike_leg);
  scale[VANNA] = density * size / v;
  scale[VOLGA] = vega * size * size / v;
  scale[CHARM] = fabsq(q) * spot_discount * n1 + density * (fabsq(slope) + fabsq(other_slope));
}

// Prices rounded to float64.
void exact_prices(long n, const double *S, const double *K, const double *T, const double *v, const double *r,
                  const double *q, const unsigned char *call, double *price) {
  quad out[VALUES], scale[VALUES];
  for (long i = 0; i < n; i++) {
    values(S[i], K[i], T[i], v[i], r[i], q[i], call[i], out, scale);
    price[i] = (double)out[PRICE];
  }
}

// `error` has ten columns: price over max(S, K), price relative where above 1e-30 S, eight Greeks over their scale.
void value_errors(long n, const double *S, const double *K, const double *T, const double *v, const double *r,
                  const double *q, const unsigned char *call, const double *found, double *error) {
  quad out[VALUES], scale[VALUES];
  for (long i = 0; i < n; i++) {
    values(S[i], K[i], T[i], v[i], r[i], q[i], call[i], out, scale);
    const quad gap = fabsq(found[i] - out[PRICE]);
    error[i] = (double)(gap / (S[i] > K[i] ? S[i] : K[i]));
    error[n + i] = out[PRICE] > 1e-30Q * S[i] ? (double)(gap / out[PRICE]) : 0;
    for (int j = DELTA; j < VALUES; j++) {
      const quad off = fabsq(found[j * n + i] - out[j]);
      error[(j + 1) * n + i] = scale[j] > 1e-250Q ? (double)(off / scale[j]) : 0;
    }
  }
}

// Errors of vols in units of what is allowed; `strong` says by which of the two rules.
void vol_errors(long n, const double *S, const double *K, const double *T, const double *r, const double *q,
                const unsigned char *call, const double *price, const double *vol, double *error,
                unsigned char *strong) {
  quad out[VALUES], scale[VALUES];
  for (long i = 0; i < n; i++) {
    values(S[i], K[i], T[i], vol[i], r[i], q[i], call[i], out, scale);
    const quad forward = S[i] * expq(-(quad)q[i] * T[i]), strike = K[i] * expq(-(quad)r[i] * T[i]);
    const quad intrinsic = call[i] ? forward - strike : strike - forward;
    const quad time_value = price[i] - (intrinsic > 0 ? intrinsic : 0);
    strong[i] = out[VEGA] * vol[i] > 1e-3Q * price[i] && time_value > 1e-10Q * S[i];
    if (strong[i]) {
      error[i] = (double)(fabsq((price[i] - out[PRICE]) / out[VEGA]) / vol[i] / 1e-12Q);
    } else {
      const double allowed = 8.881784197001252e-16 * (double)(out[VEGA] * vol[i] / out[PRICE]);
      error[i] = (double)fabsq(out[PRICE] / price[i] - 1) / (allowed > 1e-13 ? allowed : 1e-13);
    }
  }
}
