/* linear.c - fully connected layers: products by gemm.h, types made equal, bias gradients.
 *
 * Products are made in bf16 where the weights are (or, for weight gradients, the activations), in fp32
 * elsewhere. Operands of another type are converted in blocks of rows, so that scratch does not grow with the
 * batch. On a processor without bf16 products the bf16 numbers are multiplied in fp32. Not here: packing,
 * tiling.
 */
#include "ops/cpu/gemm.h"
#include "ops/cpu/row_access.h"

#include "base/check.h"

enum { BLOCK_ROWS = 1024 };

size_t cpu_linear_scratch(const OpsLimits *limits, int threads)
{
    (void)threads;
    if (!limits->reduced) return 0;
    int64_t rows = limits->rows < BLOCK_ROWS ? limits->rows : BLOCK_ROWS;
    Gemm *gemm = gemm_create(1);
    bool whole_weights = !gemm_has_bf16(gemm);
    gemm_destroy(gemm);
    size_t blocks = 2 * ops_cpu_piece(rows * limits->width, sizeof(float));
    return blocks + (whole_weights ? ops_cpu_piece(limits->width * limits->width, sizeof(float)) : 0);
}

/* `t` with elements of `dtype`: itself, or a copy in scratch. */
static Tensor converted(const Ops *ops, Tensor t, Dtype dtype)
{
    if (t.dtype == dtype) return t;
    Tensor copy = tensor_alloc_2d(ops->scratch, dtype, t.shape[0], t.shape[1]);
    cpu_cast(ops, copy, t);
    return copy;
}

static Dtype product_dtype(const Ops *ops, bool want_bf16)
{
    return want_bf16 && gemm_has_bf16(ops_cpu_gemm(ops)) ? DTYPE_BF16 : DTYPE_F32;
}

/* out[n, p] = in[n, q] . op(w) + bias for one block of rows; w already has the type of the product. */
static void multiply_rows(const Ops *ops, Tensor out, Tensor in, Tensor w, bool w_transposed,
                          const float *bias)
{
    ArenaMark mark = arena_mark(ops->scratch);
    Tensor a = converted(ops, in, w.dtype);
    /* fp32 products cannot be written as bf16 */
    bool separate = w.dtype == DTYPE_F32 && out.dtype == DTYPE_BF16;
    Tensor c = separate ? tensor_alloc_2d(ops->scratch, DTYPE_F32, out.shape[0], out.shape[1]) : out;
    gemm_run(ops_cpu_gemm(ops), &(GemmProduct){.m = out.shape[0],
                                               .n = out.shape[1],
                                               .k = in.shape[1],
                                               .dtype = w.dtype,
                                               .a = a.data,
                                               .b = w.data,
                                               .b_transposed = w_transposed,
                                               .bias = bias,
                                               .c = c.data,
                                               .c_dtype = c.dtype});
    if (separate) cpu_cast(ops, out, c);
    arena_reset(ops->scratch, mark);
}

static int64_t block_end(int64_t first, int64_t rows, bool whole)
{
    return whole || rows - first <= BLOCK_ROWS ? rows : first + BLOCK_ROWS;
}

static void multiply(const Ops *ops, Tensor out, Tensor in, Tensor w, bool w_transposed, const float *bias)
{
    CHECK(row_access_is_act(in) && row_access_is_act(w) && out.dtype == in.dtype);
    if (in.shape[0] == 0) return;
    ArenaMark mark = arena_mark(ops->scratch);
    Dtype dtype = product_dtype(ops, w.dtype == DTYPE_BF16);
    Tensor weights = converted(ops, w, dtype);
    bool whole = in.dtype == dtype && (dtype == DTYPE_BF16 || out.dtype == DTYPE_F32);
    for (int64_t row = 0, next; row < in.shape[0]; row = next) {
        next = block_end(row, in.shape[0], whole);
        multiply_rows(ops, tensor_rows(out, row, next - row), tensor_rows(in, row, next - row), weights,
                      w_transposed, bias);
    }
    arena_reset(ops->scratch, mark);
}

void cpu_linear_forward(const Ops *ops, Tensor y, Tensor x, Tensor w, Tensor b)
{
    CHECK(y.ndim == 2 && x.ndim == 2 && w.ndim == 2);
    CHECK(y.shape[0] == x.shape[0] && y.shape[1] == w.shape[0] && x.shape[1] == w.shape[1]);
    CHECK(!tensor_given(b) || tensor_count(b) == w.shape[0]);
    multiply(ops, y, x, w, true, tensor_given(b) ? tensor_f32(b) : NULL);
    ops_cpu_progress(ops);
}

void cpu_linear_backward_input(const Ops *ops, Tensor dx, Tensor dy, Tensor w)
{
    CHECK(dx.ndim == 2 && dy.ndim == 2 && w.ndim == 2);
    CHECK(dx.shape[0] == dy.shape[0] && dx.shape[1] == w.shape[1] && dy.shape[1] == w.shape[0]);
    multiply(ops, dx, dy, w, false, NULL);
    ops_cpu_progress(ops);
}

/* db[first .. last) += column sums of dy. Short sums of 64 rows first: fewer roundings for a long batch. */
static void sum_columns(float *db, Tensor dy, int64_t first, int64_t last)
{
    float partial[ROW_ACCESS_CHUNK], total[ROW_ACCESS_CHUNK], buffer[ROW_ACCESS_CHUNK];
    int64_t width = last - first;
    memset(partial, 0, (size_t)width * sizeof *partial);
    memset(total, 0, (size_t)width * sizeof *total);
    for (int64_t row = 0; row < dy.shape[0]; row++) {
        const float *values = row_access_read(dy, row * dy.shape[1] + first, width, buffer);
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            partial[j] += values[j];
        if (row % 64 == 63) row_access_move_sum(total, partial, width);
    }
    row_access_move_sum(total, partial, width);
    for (int64_t j = 0; j < width; j++)
        db[first + j] += total[j];
}

/* Each thread sums columns of its own, as long pieces of a row as it can: sums do not depend on the threads.
 */
static void backward_bias(const Ops *ops, float *db, Tensor dy)
{
    int64_t columns = dy.shape[1];
    int threads = ops_cpu_threads(ops, tensor_count(dy), columns / 16);
    int64_t parts = threads;
    while ((columns + parts - 1) / parts > ROW_ACCESS_CHUNK - 16)
        parts += threads;
    int64_t width = ((columns + parts - 1) / parts + 15) / 16 * 16; /* whole cache lines */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        int64_t first = part * width, last = first + width < columns ? first + width : columns;
        if (first < last) sum_columns(db, dy, first, last);
    }
}

void cpu_linear_backward_weight(const Ops *ops, Tensor dw, Tensor db, Tensor dy, Tensor x)
{
    CHECK(dw.ndim == 2 && dy.ndim == 2 && x.ndim == 2 && row_access_is_act(dy) && x.dtype == dy.dtype);
    CHECK(dy.shape[0] == x.shape[0] && dw.shape[0] == dy.shape[1] && dw.shape[1] == x.shape[1]);
    CHECK(!tensor_given(db) || tensor_count(db) == dw.shape[0]);
    if (tensor_given(db)) backward_bias(ops, tensor_f32(db), dy);

    Dtype dtype = product_dtype(ops, dy.dtype == DTYPE_BF16);
    for (int64_t row = 0, next; row < dy.shape[0]; row = next) {
        next = block_end(row, dy.shape[0], dy.dtype == dtype);
        ArenaMark mark = arena_mark(ops->scratch);
        Tensor a = converted(ops, tensor_rows(dy, row, next - row), dtype);
        Tensor b = converted(ops, tensor_rows(x, row, next - row), dtype);
        gemm_run(ops_cpu_gemm(ops), &(GemmProduct){.m = dw.shape[0],
                                                   .n = dw.shape[1],
                                                   .k = next - row,
                                                   .dtype = dtype,
                                                   .a = a.data,
                                                   .a_transposed = true,
                                                   .b = b.data,
                                                   .accumulate = true,
                                                   .c = tensor_f32(dw),
                                                   .c_dtype = DTYPE_F32});
        arena_reset(ops->scratch, mark);
    }
    ops_cpu_progress(ops);
}
