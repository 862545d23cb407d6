/* rows.c - moving rows and changing their type: gather, scatter-add, cast, zero. */
#include "ops/cpu/ops_cpu.h"
#include "ops/cpu/row_access.h"

/* n elements from one tensor to another; fp32 and bf16 in any combination. */
static void copy_elements(Tensor out, int64_t out_first, Tensor in, int64_t in_first, int64_t n)
{
    if (out.dtype == in.dtype) {
        size_t size = dtype_size(in.dtype);
        memcpy((char *)out.data + (size_t)out_first * size, (const char *)in.data + (size_t)in_first * size,
               (size_t)n * size);
    } else if (out.dtype == DTYPE_BF16) {
        row_access_to_bf16((uint16_t *)out.data + out_first, (const float *)in.data + in_first, n);
    } else {
        row_access_to_f32((float *)out.data + out_first, (const uint16_t *)in.data + in_first, n);
    }
}

void cpu_gather_rows(const Ops *ops, Tensor y, Tensor x, Tensor rows)
{
    CHECK(y.ndim == 2 && x.ndim == 2 && y.shape[1] == x.shape[1]);
    CHECK(row_access_is_act(x) && row_access_is_act(y));
    row_access_check_rows(rows, y.shape[0], x.shape[0]);
    int64_t n = y.shape[0], columns = y.shape[1];
    int threads = ops_cpu_threads(ops, n * columns, n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++)
        copy_elements(y, i * columns, x, row_access_index(rows, i, x.shape[0]) * columns, columns);
}

/* Each thread adds its own columns of all rows: repeated rows need no locks and keep their order. */
void cpu_scatter_add_rows(const Ops *ops, Tensor x, Tensor y, Tensor rows)
{
    enum { COLUMNS = 64 };
    CHECK(y.ndim == 2 && x.ndim == 2 && y.shape[1] == x.shape[1] && row_access_is_act(y));
    row_access_check_rows(rows, y.shape[0], x.shape[0]);
    int64_t n = y.shape[0], columns = y.shape[1], groups = (columns + COLUMNS - 1) / COLUMNS;
    float *sums = tensor_f32(x);
    int parts = ops_cpu_threads(ops, n * columns, groups);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; part++) {
        float buffer[ROW_ACCESS_CHUNK];
        int64_t first_group, last_group;
        ops_cpu_part(groups, part, parts, &first_group, &last_group);
        int64_t begin = first_group * COLUMNS, end = last_group * COLUMNS;
        if (end > columns) end = columns;
        for (int64_t i = 0; i < n; i++) {
            int64_t row = row_access_index(rows, i, x.shape[0]);
            for (int64_t j = begin; j < end; j += ROW_ACCESS_CHUNK) {
                int64_t count = end - j < ROW_ACCESS_CHUNK ? end - j : ROW_ACCESS_CHUNK;
                const float *values = row_access_read(y, i * columns + j, count, buffer);
                float *sum = sums + row * columns + j;
#pragma omp simd
                for (int64_t k = 0; k < count; k++)
                    sum[k] += values[k];
            }
        }
    }
}

void cpu_cast(const Ops *ops, Tensor out, Tensor in)
{
    enum { CHUNK = 4096 };
    int64_t count = tensor_count(in), chunks = (count + CHUNK - 1) / CHUNK;
    CHECK(tensor_count(out) == count && row_access_is_act(in) && row_access_is_act(out));
    int threads = ops_cpu_threads(ops, count, chunks);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t first = chunk * CHUNK;
        copy_elements(out, first, in, first, count - first < CHUNK ? count - first : CHUNK);
    }
}

void cpu_zero(const Ops *ops, Tensor x)
{
    enum { CHUNK = 1 << 20 };
    char *bytes = x.data;
    int64_t count = (int64_t)tensor_bytes(x), chunks = (count + CHUNK - 1) / CHUNK;
    int threads = ops_cpu_threads(ops, count / 4, chunks);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t first = chunk * CHUNK;
        memset(bytes + first, 0, (size_t)(count - first < CHUNK ? count - first : CHUNK));
    }
}
