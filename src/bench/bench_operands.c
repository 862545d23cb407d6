/* bench_operands.c - random tensors by repetition. */
#include "bench/bench_operands.h"

#include "base/check.h"
#include "base/rng.h"

#include <string.h>

enum { TABLE = 8191 }; /* prime: no row length divides it, so rows differ */

void bench_operands_fill(float *values, int64_t n, double scale)
{
    Rng rng = rng_at(0, RNG_BENCH, 0, (uint64_t)n);
    for (int64_t i = 0; i < n && i < TABLE; i++)
        values[i] = (float)(rng_normal(&rng) * scale);
    for (int64_t i = TABLE; i < n; i += TABLE)
        memcpy(values + i, values, sizeof *values * (size_t)(n - i < TABLE ? n - i : TABLE));
}

Tensor bench_operands_2d(Arena *arena, Dtype dtype, int64_t rows, int64_t columns, double scale)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    Tensor t = tensor_alloc_2d(arena, dtype, rows, columns);
    int64_t n = rows * columns;
    if (dtype == DTYPE_F32) {
        bench_operands_fill(tensor_f32(t), n, scale);
        return t;
    }
    float table[TABLE];
    uint16_t *out = t.data;
    bench_operands_fill(table, TABLE, scale);
    for (int64_t i = 0; i < n; i++)
        out[i] = i < TABLE ? dtype_bf16_from_f32(table[i]) : out[i - TABLE];
    return t;
}

Tensor bench_operands_1d(Arena *arena, int64_t n, double scale)
{
    Tensor t = tensor_alloc_1d(arena, DTYPE_F32, n);
    bench_operands_fill(tensor_f32(t), n, scale);
    return t;
}
