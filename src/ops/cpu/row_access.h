/* row_access.h - pieces of fp32 or bf16 tensors as fp32.
 *
 * Loops work on at most ROW_ACCESS_CHUNK elements at a time: fp32 memory is used where it lies, bf16 goes
 * through a buffer on the stack that stays in the first-level cache. Not for whole matrices: `cast` does
 * those.
 */
#ifndef DINOBATCH_OPS_CPU_ROW_ACCESS_H
#define DINOBATCH_OPS_CPU_ROW_ACCESS_H

#include "base/check.h"
#include "tensor/tensor.h"

enum { ROW_ACCESS_CHUNK = 512 };

/* The same rounding as dtype_bf16_from_f32, in a form that vectorises. */
static inline uint16_t row_access_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    uint32_t quiet = bits | 0x400000u;
    return (uint16_t)((value == value ? rounded : quiet) >> 16);
}

static inline void row_access_to_bf16(uint16_t *out, const float *in, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = row_access_bf16(in[i]);
}

static inline void row_access_to_f32(float *out, const uint16_t *in, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = dtype_f32_from_bf16(in[i]);
}

/* Elements first .. first + n of an fp32 or bf16 tensor (n <= ROW_ACCESS_CHUNK): in place, or in `buffer`. */
static inline const float *row_access_read(Tensor t, int64_t first, int64_t n, float *buffer)
{
    if (t.dtype == DTYPE_F32) return (const float *)t.data + first;
    row_access_to_f32(buffer, (const uint16_t *)t.data + first, n);
    return buffer;
}

/* Where to compute elements that row_access_commit then puts into place. */
static inline float *row_access_target(Tensor t, int64_t first, float *buffer)
{
    return t.dtype == DTYPE_F32 ? (float *)t.data + first : buffer;
}

static inline void row_access_commit(Tensor t, int64_t first, int64_t n, const float *target)
{
    if (t.dtype == DTYPE_BF16) row_access_to_bf16((uint16_t *)t.data + first, target, n);
}

/* total += part, and part starts again at zero. */
static inline void row_access_move_sum(float *total, float *part, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        total[i] += part[i];
        part[i] = 0.0f;
    }
}

static inline bool row_access_is_act(Tensor t)
{
    return t.dtype == DTYPE_F32 || t.dtype == DTYPE_BF16;
}

/* `rows` selects n of `total` rows: int32 [n], or none where n = total. An empty selection may be none, too.
 */
static inline void row_access_check_rows(Tensor rows, int64_t n, int64_t total)
{
    if (tensor_given(rows))
        CHECK(rows.dtype == DTYPE_I32 && tensor_count(rows) == n);
    else
        CHECK(n == total || n == 0);
}

/* The row of a tensor of `total` rows that entry i of `rows` (int32, or none: the identity) selects. */
static inline int64_t row_access_index(Tensor rows, int64_t i, int64_t total)
{
    int64_t row = tensor_given(rows) ? ((const int32_t *)rows.data)[i] : i;
    CHECK(row >= 0 && row < total);
    return row;
}

#endif
