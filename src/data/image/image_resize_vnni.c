/* image_resize_vnni.c - the passes of a resize on 8-bit dot products (AVX-512 VNNI and VBMI).
 *
 * A 23-bit weight is split into three signed digits of base 256, so that sum(pixel * weight) is three dot
 * products of bytes, put together at the end: exact, because the instruction accumulates in 32 bits without
 * saturation and the true sum fits. Without these instructions the file only says so.
 */
#include "data/image/image_resize_pass.h"

#include "base/check.h"

#include <string.h>

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__) && defined(__AVX512BW__)

#include <immintrin.h>

enum { VECTOR = 64, DIGITS = 3, MAX_PLANES = 3 };

/* Of one group of 16 outputs and 4 taps: where in the group's 64 source bytes, and three digits. */
typedef struct {
    uint8_t place[VECTOR];
    int8_t digit[DIGITS][VECTOR];
} TapBlock;

bool image_resize_vnni_built(void)
{
    return true;
}

static void split_weight(int32_t weight, int8_t *digit, int64_t stride)
{
    for (int d = 0; d < DIGITS; d++) {
        int8_t low = (int8_t)(weight & 255);
        digit[d * stride] = low;
        weight = (weight - low) >> 8;
    }
    CHECK(weight == 0);
}

/* First source byte of a group and whether all that it needs lies within one vector from there. */
static int32_t group_base(const ImageResizeAxis *axis, int64_t group, bool *narrow)
{
    const int32_t *start = axis->start + group * IMAGE_RESIZE_LANES;
    int32_t low = start[0], high = start[0];
    for (int lane = 1; lane < IMAGE_RESIZE_LANES; lane++) {
        low = start[lane] < low ? start[lane] : low;
        high = start[lane] > high ? start[lane] : high;
    }
    *narrow = high - low + axis->taps <= VECTOR;
    return low;
}

void image_resize_vnni_pack_horizontal(ImageResizeAxis *axis)
{
    int64_t groups = (axis->outputs + IMAGE_RESIZE_LANES - 1) / IMAGE_RESIZE_LANES;
    int64_t blocks = axis->taps / 4;
    axis->packed =
        image_resize_room(axis->packed, &axis->packed_bytes, (size_t)(groups * blocks) * sizeof(TapBlock));
    TapBlock *block = (TapBlock *)axis->packed;
    for (int64_t g = 0; g < groups; g++) {
        bool narrow;
        int32_t base = group_base(axis, g, &narrow);
        for (int64_t b = 0; b < blocks; b++, block++) {
            for (int64_t lane = 0; lane < IMAGE_RESIZE_LANES; lane++) {
                int64_t output = g * IMAGE_RESIZE_LANES + lane;
                for (int64_t k = 0; k < 4; k++) {
                    int32_t weight =
                        output < axis->outputs ? axis->weight[output * axis->taps + 4 * b + k] : 0;
                    split_weight(weight, &block->digit[0][4 * lane + k], VECTOR);
                    block->place[4 * lane + k] = (uint8_t)(axis->start[output] - base + 4 * b + k);
                }
            }
        }
    }
}

void image_resize_vnni_pack_vertical(ImageResizeAxis *axis)
{
    int64_t weights = axis->outputs * axis->taps;
    axis->packed = image_resize_room(axis->packed, &axis->packed_bytes, (size_t)weights * DIGITS);
    /* [output, block of 4 taps, digit, 4] */
    for (int64_t i = 0; i < weights; i++)
        split_weight(axis->weight[i], (int8_t *)axis->packed + i / 4 * 4 * DIGITS + i % 4, 4);
}

/* The three digits' sums to rounded values, not yet clamped. */
static inline __m512i join_digits(const __m512i sum[DIGITS])
{
    __m512i high = _mm512_slli_epi32(sum[2], 16);
    __m512i middle = _mm512_slli_epi32(sum[1], 8);
    __m512i total = _mm512_add_epi32(_mm512_add_epi32(high, middle), sum[0]);
    total = _mm512_add_epi32(total, _mm512_set1_epi32(1 << (IMAGE_RESIZE_BITS - 1)));
    return _mm512_srai_epi32(total, IMAGE_RESIZE_BITS);
}

/* 16 outputs of the three planes. Taps are gathered from one vector of source bytes, or, where a group spans
 * more (shrinking to less than a third), from memory. */
static inline void horizontal_group(const TapBlock *block, int64_t blocks, const int32_t *start, int32_t base,
                                    bool narrow, const uint8_t *row, int64_t plane_stride, uint8_t *to,
                                    int64_t to_stride)
{
    __m512i sum[MAX_PLANES][DIGITS];
    __m512i source[MAX_PLANES];
    for (int c = 0; c < MAX_PLANES; c++) {
        for (int d = 0; d < DIGITS; d++)
            sum[c][d] = _mm512_setzero_si512();
        source[c] = narrow ? _mm512_loadu_si512(row + c * plane_stride + base) : _mm512_setzero_si512();
    }
    for (int64_t b = 0; b < blocks; b++) {
        __m512i place = narrow ? _mm512_loadu_si512(block[b].place)
                               : _mm512_add_epi32(_mm512_loadu_si512(start), _mm512_set1_epi32((int)(4 * b)));
        __m512i digit[DIGITS];
        for (int d = 0; d < DIGITS; d++)
            digit[d] = _mm512_loadu_si512(block[b].digit[d]);
        for (int c = 0; c < MAX_PLANES; c++) {
            __m512i taps = narrow ? _mm512_permutexvar_epi8(place, source[c])
                                  : _mm512_i32gather_epi32(place, row + c * plane_stride, 1);
            for (int d = 0; d < DIGITS; d++)
                sum[c][d] = _mm512_dpbusd_epi32(sum[c][d], taps, digit[d]);
        }
    }
    for (int c = 0; c < MAX_PLANES; c++) {
        __m512i value = _mm512_max_epi32(join_digits(sum[c]), _mm512_setzero_si512());
        _mm_storeu_si128((__m128i *)(void *)(to + c * to_stride), _mm512_cvtusepi32_epi8(value));
    }
}

void image_resize_vnni_horizontal(const ImageResizeAxis *axis, ImageResizeRows in, ImageResizeOut out)
{
    int64_t groups = (axis->outputs + IMAGE_RESIZE_LANES - 1) / IMAGE_RESIZE_LANES;
    int64_t blocks = axis->taps / 4;
    const TapBlock *block = (const TapBlock *)axis->packed;
    for (int64_t g = 0; g < groups; g++, block += blocks) {
        bool narrow;
        int32_t base = group_base(axis, g, &narrow);
        const int32_t *start = axis->start + g * IMAGE_RESIZE_LANES;
        for (int64_t r = 0; r < in.rows; r++) {
            const uint8_t *row = in.data + r * in.row_stride;
            uint8_t *to = out.data + r * out.row_stride + g * IMAGE_RESIZE_LANES;
            if (narrow)
                horizontal_group(block, blocks, start, base, true, row, in.plane_stride, to,
                                 out.plane_stride);
            else
                horizontal_group(block, blocks, start, base, false, row, in.plane_stride, to,
                                 out.plane_stride);
        }
    }
}

/* Four rows of 64 bytes -> four vectors of columns with 4 taps each. The order of the columns within each
 * quarter is the one that the packs at the end undo. */
static inline void interleave_rows(const uint8_t *const row[4], __m512i taps[4])
{
    __m512i r0 = _mm512_loadu_si512(row[0]), r1 = _mm512_loadu_si512(row[1]);
    __m512i r2 = _mm512_loadu_si512(row[2]), r3 = _mm512_loadu_si512(row[3]);
    __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1);
    __m512i low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
    taps[0] = _mm512_unpacklo_epi16(low01, low23);
    taps[1] = _mm512_unpackhi_epi16(low01, low23);
    taps[2] = _mm512_unpacklo_epi16(high01, high23);
    taps[3] = _mm512_unpackhi_epi16(high01, high23);
}

/* 64 columns of one output row; `last` is the last row that exists. */
static inline __m512i vertical_columns(const uint8_t *digits, int64_t blocks, const uint8_t *from,
                                       int64_t stride, const uint8_t *last)
{
    __m512i sum[4][DIGITS];
    for (int i = 0; i < 4; i++)
        for (int d = 0; d < DIGITS; d++)
            sum[i][d] = _mm512_setzero_si512();
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t *row[4];
        for (int k = 0; k < 4; k++) {
            row[k] = from + (4 * b + k) * stride;
            row[k] = row[k] > last ? last : row[k];
        }
        __m512i taps[4];
        interleave_rows(row, taps);
        for (int d = 0; d < DIGITS; d++) {
            int32_t four;
            memcpy(&four, digits + (b * DIGITS + d) * 4, sizeof four);
            __m512i digit = _mm512_set1_epi32(four);
            for (int i = 0; i < 4; i++)
                sum[i][d] = _mm512_dpbusd_epi32(sum[i][d], taps[i], digit);
        }
    }
    __m512i low = _mm512_packs_epi32(join_digits(sum[0]), join_digits(sum[1]));
    __m512i high = _mm512_packs_epi32(join_digits(sum[2]), join_digits(sum[3]));
    return _mm512_packus_epi16(low, high);
}

void image_resize_vnni_vertical(const ImageResizeAxis *axis, ImageResizeRows in, int64_t columns,
                                ImageResizeOut out)
{
    int64_t blocks = axis->taps / 4;
    for (int64_t c = 0; c < MAX_PLANES; c++) {
        const uint8_t *plane = in.data + c * in.plane_stride;
        for (int64_t y = 0; y < axis->outputs; y++) {
            const uint8_t *from = plane + (axis->start[y] - axis->first) * in.row_stride;
            const uint8_t *last = plane + (in.rows - 1) * in.row_stride;
            uint8_t *to = out.data + c * out.plane_stride + y * out.row_stride;
            const uint8_t *digits = axis->packed + y * axis->taps * DIGITS;
            for (int64_t x = 0; x < columns; x += VECTOR) {
                __m512i value = vertical_columns(digits, blocks, from + x, in.row_stride, last + x);
                int64_t left = columns - x;
                __mmask64 keep = left >= VECTOR ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
                _mm512_mask_storeu_epi8(to + x, keep, value);
            }
        }
    }
}

#else

bool image_resize_vnni_built(void)
{
    return false;
}

void image_resize_vnni_pack_horizontal(ImageResizeAxis *axis)
{
    (void)axis;
    CHECK(!"built without VNNI");
}

void image_resize_vnni_pack_vertical(ImageResizeAxis *axis)
{
    (void)axis;
    CHECK(!"built without VNNI");
}

void image_resize_vnni_horizontal(const ImageResizeAxis *axis, ImageResizeRows in, ImageResizeOut out)
{
    (void)axis, (void)in, (void)out;
    CHECK(!"built without VNNI");
}

void image_resize_vnni_vertical(const ImageResizeAxis *axis, ImageResizeRows in, int64_t columns,
                                ImageResizeOut out)
{
    (void)axis, (void)in, (void)columns, (void)out;
    CHECK(!"built without VNNI");
}

#endif
