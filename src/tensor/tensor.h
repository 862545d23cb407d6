/* tensor.h - a view of memory: pointer, element type, shape. Owns nothing. The memory is of the device that
 * the operations on it run on; only what is staged (base/arena.h) is also written by the host.
 *
 * Row-major and contiguous, always; what needs strides is an operation's own business.
 */
#ifndef DINOBATCH_TENSOR_TENSOR_H
#define DINOBATCH_TENSOR_TENSOR_H

#include "base/arena.h"
#include "base/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum { TENSOR_MAX_DIMS = 4 };

typedef struct {
    void *data; /* NULL: the empty tensor, "not given" */
    Dtype dtype;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
} Tensor;

/* "Not given": an optional operand left out. */
static inline Tensor tensor_none(void)
{
    return (Tensor){0};
}

static inline bool tensor_given(Tensor t)
{
    return t.data != NULL;
}

/* Views of the caller's memory. */
Tensor tensor_view(void *data, Dtype dtype, int ndim, const int64_t *shape);
Tensor tensor_1d(void *data, Dtype dtype, int64_t n);
Tensor tensor_2d(void *data, Dtype dtype, int64_t rows, int64_t columns);

/* Uninitialised memory from an arena. */
Tensor tensor_alloc_1d(Arena *arena, Dtype dtype, int64_t n);
Tensor tensor_alloc_2d(Arena *arena, Dtype dtype, int64_t rows, int64_t columns);

/* Staged memory from an arena: the tensor is what operations read, *host (a pointer to a pointer of the
 * element type) where the caller fills it in before device_upload_staged; NULL on a measuring arena. */
Tensor tensor_stage_1d(Arena *arena, Dtype dtype, int64_t n, void *host);
Tensor tensor_stage_2d(Arena *arena, Dtype dtype, int64_t rows, int64_t columns, void *host);

int64_t tensor_count(Tensor t);
size_t tensor_bytes(Tensor t);

/* Rows [first, first + rows) of the leading dimension. */
Tensor tensor_rows(Tensor t, int64_t first, int64_t rows);

/* The same memory as [rows, columns]. */
Tensor tensor_as_2d(Tensor t, int64_t rows, int64_t columns);

/* The elements of an fp32 / fp64 / int32 tensor; CHECK-fails on another type. */
float *tensor_f32(Tensor t);
double *tensor_f64(Tensor t);
int32_t *tensor_i32(Tensor t);

#endif
