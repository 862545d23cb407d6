/* comm_combine.c - element-wise reduction over pieces, in blocks that stay in the first-level cache. */
#include "comm/mpi/comm_combine.h"

#include "base/check.h"

#include <string.h>

enum { BLOCK = 1024 };

static const char *piece_of(const CombinePieces *pieces, int rank)
{
    return rank == pieces->rank ? pieces->own : pieces->others + (size_t)rank * pieces->stride;
}

/* `b != b` is true for NaN only; written so that it also compiles for integers. */
#define DEFINE_COMBINE(TYPE, NAME)                                                                       \
    static void accumulate_##NAME(TYPE *total, const TYPE *more, int64_t n, CommReduce reduce)           \
    {                                                                                                    \
        if (reduce == COMM_SUM)                                                                          \
            for (int64_t i = 0; i < n; i++)                                                              \
                total[i] += more[i];                                                                     \
        else if (reduce == COMM_MAX)                                                                     \
            for (int64_t i = 0; i < n; i++)                                                              \
                total[i] = more[i] > total[i] || more[i] != more[i] ? more[i] : total[i];                \
        else                                                                                             \
            for (int64_t i = 0; i < n; i++)                                                              \
                total[i] = more[i] < total[i] || more[i] != more[i] ? more[i] : total[i];                \
    }                                                                                                    \
                                                                                                         \
    static void combine_##NAME(TYPE *out, const CombinePieces *pieces, int64_t count, CommReduce reduce) \
    {                                                                                                    \
        TYPE total[BLOCK];                                                                               \
        for (int64_t first = 0; first < count; first += BLOCK) {                                         \
            int64_t n = count - first < BLOCK ? count - first : BLOCK;                                   \
            memcpy(total, (const TYPE *)(const void *)piece_of(pieces, 0) + first,                       \
                   (size_t)n * sizeof *total);                                                           \
            for (int r = 1; r < pieces->size; r++)                                                       \
                accumulate_##NAME(total, (const TYPE *)(const void *)piece_of(pieces, r) + first, n,     \
                                  reduce);                                                               \
            memcpy(out + first, total, (size_t)n * sizeof *total);                                       \
        }                                                                                                \
    }

DEFINE_COMBINE(float, f32)
DEFINE_COMBINE(double, f64)
DEFINE_COMBINE(int64_t, i64)

/* --- 16-bit numbers --- */

static void widen(float *out, const uint16_t *in, int64_t n, Dtype dtype)
{
    if (dtype == DTYPE_BF16)
        for (int64_t i = 0; i < n; i++)
            out[i] = dtype_f32_from_bf16(in[i]);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = dtype_f32_from_f16(in[i]);
}

static void narrow(uint16_t *out, const float *in, int64_t n, Dtype dtype)
{
    if (dtype == DTYPE_BF16)
        for (int64_t i = 0; i < n; i++)
            out[i] = dtype_bf16_from_f32(in[i]);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = dtype_f16_from_f32(in[i]);
}

static void combine_16_bits(uint16_t *out, const CombinePieces *pieces, int64_t count, Dtype dtype,
                            CommReduce reduce)
{
    float total[BLOCK], more[BLOCK];
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t n = count - first < BLOCK ? count - first : BLOCK;
        widen(total, (const uint16_t *)(const void *)piece_of(pieces, 0) + first, n, dtype);
        for (int r = 1; r < pieces->size; r++) {
            widen(more, (const uint16_t *)(const void *)piece_of(pieces, r) + first, n, dtype);
            accumulate_f32(total, more, n, reduce);
        }
        narrow(out + first, total, n, dtype);
    }
}

void comm_combine(void *out, CombinePieces pieces, int64_t n, Dtype dtype, CommReduce reduce)
{
    if (dtype == DTYPE_F32)
        combine_f32(out, &pieces, n, reduce);
    else if (dtype == DTYPE_F64)
        combine_f64(out, &pieces, n, reduce);
    else if (dtype == DTYPE_I64)
        combine_i64(out, &pieces, n, reduce);
    else if (dtype == DTYPE_BF16 || dtype == DTYPE_F16)
        combine_16_bits(out, &pieces, n, dtype, reduce);
    else
        CHECK(0 && "a dtype that can be reduced");
}
