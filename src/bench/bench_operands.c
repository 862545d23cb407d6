/* bench_operands.c - random tensors by repetition. */
#include "bench/bench_operands.h"

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

/* Copies of the front of it behind it, twice as much each time. */
static void repeat(Device *device, Tensor t, int64_t period)
{
    size_t each = dtype_size(t.dtype);
    char *data = t.data;
    int64_t n = tensor_count(t);
    for (int64_t have = period; have < n; have *= 2) {
        int64_t more = n - have < have ? n - have : have;
        device_copy(device, data + (size_t)have * each, data, (size_t)more * each);
    }
}

Tensor bench_operands_2d(const Ops *ops, Arena *arena, Dtype dtype, int64_t rows, int64_t columns,
                         double scale)
{
    float values[TABLE];
    Tensor t = tensor_alloc_2d(arena, dtype, rows, columns);
    int64_t n = rows * columns < TABLE ? rows * columns : TABLE;
    bench_operands_fill(values, n, scale);
    ArenaMark mark = arena_mark(arena);
    Tensor table = bench_operands_copy(ops, arena, DTYPE_F32, n, values);
    ops->cast(ops, tensor_1d(t.data, dtype, n), table);
    arena_reset(arena, mark);
    repeat(ops->device, t, n);
    return t;
}

Tensor bench_operands_1d(const Ops *ops, Arena *arena, int64_t n, double scale)
{
    return tensor_1d(bench_operands_2d(ops, arena, DTYPE_F32, 1, n, scale).data, DTYPE_F32, n);
}

Tensor bench_operands_zeros(const Ops *ops, Arena *arena, Dtype dtype, int64_t n)
{
    Tensor t = tensor_alloc_1d(arena, dtype, n);
    ops->zero(ops, t);
    return t;
}

Tensor bench_operands_copy(const Ops *ops, Arena *arena, Dtype dtype, int64_t n, const void *values)
{
    Tensor t = tensor_alloc_1d(arena, dtype, n);
    device_upload(ops->device, t.data, values, tensor_bytes(t));
    return t;
}
