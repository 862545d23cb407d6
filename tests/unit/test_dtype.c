/* test_dtype.c - 16-bit numbers: every one of them there and back, and the rounding around each of them
 * against the compiler's own fp16. */
#include "base/dtype.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef _Float16 Half;

static uint16_t bits_of(Half value)
{
    uint16_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

Test(dtype, every_fp16_and_bf16_goes_there_and_back)
{
    for (uint32_t i = 0; i < 65536; i++) {
        Half half;
        uint16_t bits = (uint16_t)i;
        memcpy(&half, &bits, sizeof half);
        float value = dtype_f32_from_f16(bits), expected = (float)half;
        if (isnan(expected)) {
            cr_assert(isnan(value) && isnan(dtype_f32_from_f16(dtype_f16_from_f32(value))), "fp16 %04x", i);
        } else {
            cr_assert(memcmp(&value, &expected, sizeof value) == 0, "fp16 %04x", i);
            cr_assert_eq(dtype_f16_from_f32(value), bits, "fp16 %04x", i);
        }
        value = dtype_f32_from_bf16(bits);
        if (isnan(value))
            cr_assert(isnan(dtype_f32_from_bf16(dtype_bf16_from_f32(value))), "bf16 %04x", i);
        else
            cr_assert_eq(dtype_bf16_from_f32(value), bits, "bf16 %04x", i);
    }
}

/* The fp32 numbers beside every fp16 one, beside the middle to the next, and many others. */
Test(dtype, fp16_rounds_to_nearest_even)
{
    for (uint32_t i = 0; i < 0xfc00u; i++) {
        if ((i & 0x7fffu) >= 0x7c00u) continue;
        float here = dtype_f32_from_f16((uint16_t)i), next = dtype_f32_from_f16((uint16_t)(i + 1));
        if ((i & 0x7fffu) == 0x7bffu) next = here < 0 ? -65536.0f : 65536.0f;
        float middle = here + (next - here) / 2;
        const float places[] = {nextafterf(here, -INFINITY), nextafterf(here, INFINITY),
                                nextafterf(middle, -INFINITY), middle, nextafterf(middle, INFINITY)};
        for (int k = 0; k < 5; k++)
            cr_assert_eq(dtype_f16_from_f32(places[k]), bits_of((Half)places[k]), "%a", (double)places[k]);
    }
    for (uint32_t i = 0; i < 0x7f800000u; i += 4099) {
        cr_assert_eq(dtype_f16_from_f32(from_bits(i)), bits_of((Half)from_bits(i)), "%08x", i);
        cr_assert_eq(dtype_f16_from_f32(-from_bits(i)), bits_of((Half)-from_bits(i)), "-%08x", i);
    }
    cr_expect_eq(dtype_f16_from_f32(INFINITY), 0x7c00);
    cr_expect(isnan(dtype_f32_from_f16(dtype_f16_from_f32(NAN))));
}

Test(dtype, bf16_rounds_to_nearest_even)
{
    cr_expect_eq(dtype_bf16_from_f32(from_bits(0x3f808000u)), 0x3f80);
    cr_expect_eq(dtype_bf16_from_f32(from_bits(0x3f818000u)), 0x3f82);
    cr_expect_eq(dtype_bf16_from_f32(from_bits(0x3f808001u)), 0x3f81);
    cr_expect_eq(dtype_bf16_from_f32(from_bits(0x7f7fffffu)), 0x7f80);
}
