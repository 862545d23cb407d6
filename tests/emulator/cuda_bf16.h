/* cuda_bf16.h - bfloat16 in the emulator: conversions, rounded to nearest even. */
#ifndef DINOBATCH_TESTS_EMULATOR_CUDA_BF16_H
#define DINOBATCH_TESTS_EMULATOR_CUDA_BF16_H

#include "device_functions.h"

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x)
    {
        uint32_t word = emulated_bits<uint32_t>(x);
        if ((word & 0x7fffffffu) > 0x7f800000u)
            bits = 0x7fff;
        else
            bits = (uint16_t)((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
    }
    operator float() const
    {
        return emulated_bits<float>((uint32_t)bits << 16);
    }
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline float __bfloat162float(__nv_bfloat16 x)
{
    return x;
}
static inline __nv_bfloat16 __float2bfloat16(float x)
{
    return __nv_bfloat16(x);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    return __nv_bfloat16(x);
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__nv_bfloat16(x), __nv_bfloat16(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v)
{
    return {__nv_bfloat16(v.x), __nv_bfloat16(v.y)};
}
static inline __nv_bfloat162 __float2bfloat162_rn(float x)
{
    return {__nv_bfloat16(x), __nv_bfloat16(x)};
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
    return {x, y};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
    return make_float2(v.x, v.y);
}
static inline float __low2float(__nv_bfloat162 v)
{
    return v.x;
}
static inline float __high2float(__nv_bfloat162 v)
{
    return v.y;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return emulated_bits<__nv_bfloat16>(bits);
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x)
{
    return x.bits;
}

#endif
