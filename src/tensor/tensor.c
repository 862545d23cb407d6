/* tensor.c - views and their arithmetic. */
#include "tensor/tensor.h"

#include "base/check.h"

Tensor tensor_view(void *data, Dtype dtype, int ndim, const int64_t *shape)
{
    CHECK(ndim >= 0 && ndim <= TENSOR_MAX_DIMS);
    Tensor t = {.data = data, .dtype = dtype, .ndim = ndim};
    for (int d = 0; d < ndim; d++)
        t.shape[d] = shape[d];
    return t;
}

Tensor tensor_1d(void *data, Dtype dtype, int64_t n)
{
    return (Tensor){.data = data, .dtype = dtype, .ndim = 1, .shape = {n}};
}

Tensor tensor_2d(void *data, Dtype dtype, int64_t rows, int64_t columns)
{
    return (Tensor){.data = data, .dtype = dtype, .ndim = 2, .shape = {rows, columns}};
}

Tensor tensor_alloc_1d(Arena *arena, Dtype dtype, int64_t n)
{
    return tensor_1d(arena_alloc(arena, (size_t)n * dtype_size(dtype)), dtype, n);
}

Tensor tensor_alloc_2d(Arena *arena, Dtype dtype, int64_t rows, int64_t columns)
{
    return tensor_2d(arena_alloc(arena, (size_t)(rows * columns) * dtype_size(dtype)), dtype, rows, columns);
}

Tensor tensor_stage_1d(Arena *arena, Dtype dtype, int64_t n, void *host)
{
    return tensor_1d(arena_alloc_staged(arena, (size_t)n * dtype_size(dtype), host), dtype, n);
}

Tensor tensor_stage_2d(Arena *arena, Dtype dtype, int64_t rows, int64_t columns, void *host)
{
    return tensor_2d(arena_alloc_staged(arena, (size_t)(rows * columns) * dtype_size(dtype), host), dtype,
                     rows, columns);
}

int64_t tensor_count(Tensor t)
{
    if (!tensor_given(t)) return 0;
    int64_t count = 1;
    for (int d = 0; d < t.ndim; d++)
        count *= t.shape[d];
    return count;
}

size_t tensor_bytes(Tensor t)
{
    return (size_t)tensor_count(t) * dtype_size(t.dtype);
}

Tensor tensor_rows(Tensor t, int64_t first, int64_t rows)
{
    CHECK(t.ndim >= 1 && first >= 0 && rows >= 0 && first + rows <= t.shape[0]);
    size_t row_bytes = dtype_size(t.dtype);
    for (int d = 1; d < t.ndim; d++)
        row_bytes *= (size_t)t.shape[d];
    t.data = (char *)t.data + (size_t)first * row_bytes;
    t.shape[0] = rows;
    return t;
}

Tensor tensor_as_2d(Tensor t, int64_t rows, int64_t columns)
{
    CHECK(tensor_count(t) == rows * columns);
    t.ndim = 2;
    t.shape[0] = rows;
    t.shape[1] = columns;
    return t;
}

float *tensor_f32(Tensor t)
{
    CHECK(t.dtype == DTYPE_F32);
    return t.data;
}

double *tensor_f64(Tensor t)
{
    CHECK(t.dtype == DTYPE_F64);
    return t.data;
}

int32_t *tensor_i32(Tensor t)
{
    CHECK(t.dtype == DTYPE_I32);
    return t.data;
}
