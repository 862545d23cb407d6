/* vector_math.h - exp, erf and logistic in fp32 without branches, so that the compiler vectorises loops of
 * them.
 *
 * Coefficients: own least-squares fits with reweighting towards the smallest largest relative error (exp:
 * 3e-9, erf: 2e-8 in exact arithmetic; about 2 and 3 units in the last place in fp32). NaN stays NaN. Not
 * libm: no errno, no subnormal results.
 */
#ifndef DINOBATCH_OPS_CPU_VECTOR_MATH_H
#define DINOBATCH_OPS_CPU_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

/* e^x; below -87.3 the result is 1.2e-38, above 88.3 it stays at 2.2e38. */
static inline float vector_exp(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves an integer in the low bits */
    x = x < -87.33f ? -87.33f : x;
    x = x > 88.37f ? 88.37f : x;
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 0.00138145988f;
    p = p * r + 0.00836871751f;
    p = p * r + 0.041668389f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* 1 / (1 + e^-x) */
static inline float vector_logistic(float x)
{
    return 1.0f / (1.0f + vector_exp(-x));
}

/* erf(x), as x P(x^2) / Q(x^2) where it differs from +-1 */
static inline float vector_erf(float x)
{
    x = x < -3.9194f ? -3.9194f : x;
    x = x > 3.9194f ? 3.9194f : x;
    float u = x * x;
    float p = 2.05057267e-6f;
    p = p * u + 2.84888578e-4f;
    p = p * u + 3.76482145e-3f;
    p = p * u + 5.27463704e-2f;
    p = p * u + 0.190384805f;
    p = p * u + 1.12837911f;
    float q = 3.80970305e-5f;
    q = q * u + 1.16238627e-3f;
    q = q * u + 1.49676116e-2f;
    q = q * u + 0.11410062f;
    q = q * u + 0.502056897f;
    q = q * u + 1.0f;
    return x * p / q;
}

/* The standard normal distribution's integral and density. */
static inline float vector_normal_cdf(float x)
{
    return 0.5f + 0.5f * vector_erf(x * 0.707106781f);
}

static inline float vector_normal_density(float x)
{
    return 0.398942280f * vector_exp(-0.5f * x * x);
}

#endif
