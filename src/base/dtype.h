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

/* bfloat16 is the upper half of a float; rounded to nearest even, NaN stays NaN. */
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

#endif
