/* dtype.h - element types and their conversions. */
#ifndef DINOBATCH_BASE_DTYPE_H
#define DINOBATCH_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum {
    DTYPE_F32 = 0,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F64,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_U8,
    DTYPE_COUNT
} Dtype;

size_t dtype_size(Dtype dtype);

/* The reference's names: "fp32", "bf16", "fp16", and "fp64", "int32", "int64", "uint8". */
const char *dtype_name(Dtype dtype);

/* Conversions to 16 bits round to nearest even, and NaN stays NaN. All of them vectorise. */

/* bfloat16 is the upper half of a float. */
static inline uint16_t dtype_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float dtype_f32_from_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* fp16 has 5 bits of exponent and 10 of fraction. Infinity from 65520 on; below 2^-14 the unit is 2^-24. */
static inline uint16_t dtype_f16_from_f32(float value)
{
    uint32_t bits, small_bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t rebased = magnitude - (112u << 23); /* the exponent's new bias */
    uint32_t normal = (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13;
    /* A float at 0.5 has the unit 2^-24: the addition rounds. Of larger numbers anything comes out. */
    float magnitude_value, small;
    memcpy(&magnitude_value, &magnitude, sizeof magnitude_value);
    small = magnitude_value + 0.5f;
    memcpy(&small_bits, &small, sizeof small_bits);
    uint32_t result = magnitude < 0x38800000u ? small_bits - 0x3f000000u : normal;
    result = magnitude >= 0x477ff000u ? 0x7c00u : result;
    result = magnitude > 0x7f800000u ? 0x7e00u | (magnitude >> 13 & 0x3ffu) : result;
    return (uint16_t)(sign | result);
}

static inline float dtype_f32_from_f16(uint16_t value)
{
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16, magnitude = value & 0x7fffu;
    uint32_t small_bits = 0x3f000000u + magnitude, bits = (magnitude << 13) + (112u << 23);
    float small, result;
    memcpy(&small, &small_bits, sizeof small);
    small -= 0.5f;
    memcpy(&small_bits, &small, sizeof small_bits);
    bits = magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13 : bits;
    bits = sign | (magnitude < 0x400u ? small_bits : bits);
    memcpy(&result, &bits, sizeof result);
    return result;
}

#endif
