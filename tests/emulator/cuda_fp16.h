/* cuda_fp16.h - half precision in the emulator: conversions, rounded to nearest even. */
#ifndef DINOBATCH_TESTS_EMULATOR_CUDA_FP16_H
#define DINOBATCH_TESTS_EMULATOR_CUDA_FP16_H

#include "device_functions.h"

/* Overflow gives infinity; numbers below 2^-14 lose bits as they should. */
static inline uint16_t emulated_half_from_float(float x)
{
    uint32_t word = emulated_bits<uint32_t>(x), sign = word >> 16 & 0x8000u, magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* adding 0.5 leaves the rounded fraction in the lowest bits */
        float shifted = emulated_bits<float>(magnitude) + 0.5f;
        return (uint16_t)(sign | (emulated_bits<uint32_t>(shifted) - 0x3f000000u));
    }
    uint32_t rebased = magnitude - (112u << 23);
    return (uint16_t)(sign | ((rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13));
}

static inline float emulated_half_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return emulated_bits<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude < 0x400u) {
        float small = (float)magnitude * 0x1p-24f;
        return sign ? -small : small;
    }
    return emulated_bits<float>(sign | ((magnitude << 13) + (112u << 23)));
}

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float x) : bits(emulated_half_from_float(x))
    {
    }
    operator float() const
    {
        return emulated_half_to_float(bits);
    }
};

struct alignas(4) __half2 {
    __half x, y;
};

typedef __half half;
typedef __half2 half2;

static inline float __half2float(__half x)
{
    return x;
}
static inline __half __float2half(float x)
{
    return __half(x);
}
static inline __half __float2half_rn(float x)
{
    return __half(x);
}
static inline __half2 __floats2half2_rn(float x, float y)
{
    return {__half(x), __half(y)};
}
static inline __half2 __float22half2_rn(float2 v)
{
    return {__half(v.x), __half(v.y)};
}
static inline __half2 __halves2half2(__half x, __half y)
{
    return {x, y};
}
static inline __half2 make_half2(__half x, __half y)
{
    return {x, y};
}
static inline float2 __half22float2(__half2 v)
{
    return make_float2(v.x, v.y);
}
static inline float __low2float(__half2 v)
{
    return v.x;
}
static inline float __high2float(__half2 v)
{
    return v.y;
}
static inline __half __ushort_as_half(unsigned short bits)
{
    return emulated_bits<__half>(bits);
}
static inline unsigned short __half_as_ushort(__half x)
{
    return x.bits;
}

#endif
