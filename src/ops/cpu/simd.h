/* simd.h - vectors of floats by the compiler's vector types: AVX-512, AVX2 or anything else from one source.
 *
 * For the few loops where the width and the order of sums are chosen by hand; all others are left to the
 * compiler (vector_math.h). Not a wrapper of intrinsics. */
#ifndef DINOBATCH_OPS_CPU_SIMD_H
#define DINOBATCH_OPS_CPU_SIMD_H

#include <stdint.h>

#ifdef __AVX512F__
enum { SIMD_LANES = 16 };
#else
enum { SIMD_LANES = 8 };
#endif

typedef float Simd
    __attribute__((vector_size(SIMD_LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t SimdMask __attribute__((vector_size(SIMD_LANES * sizeof(int32_t))));

/* At any address. */
static inline Simd simd_load(const float *p)
{
    return *(const Simd *)p;
}

static inline void simd_store(float *p, Simd value)
{
    *(Simd *)p = value;
}

static inline Simd simd_set(float value)
{
    return (Simd){0} + value;
}

/* a where a > b, else b: a NaN in a is lost, one in b stays. */
static inline Simd simd_max(Simd a, Simd b)
{
    SimdMask greater = a > b;
    return (Simd)((greater & (SimdMask)a) | (~greater & (SimdMask)b));
}

/* e^x as vector_exp (vector_math.h), for x <= 0 only. NaN stays NaN. */
static inline Simd simd_exp_negative(Simd x)
{
    x = simd_max(simd_set(-87.33f), x);
    Simd shifted = x * 1.44269504f + 12582912.0f;
    Simd n = shifted - 12582912.0f;
    Simd r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Simd p = simd_set(0.00138145988f);
    p = p * r + 0.00836871751f;
    p = p * r + 0.041668389f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    return p * (Simd)(((SimdMask)shifted + 127) << 23);
}

static inline float simd_sum(Simd value)
{
    float sum = 0.0f;
    for (int i = 0; i < SIMD_LANES; i++)
        sum += value[i];
    return sum;
}

#endif
