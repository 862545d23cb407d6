/* row_access.cuh - rows and flat vectors as fp32 registers, sums of columns, and grids for kernels that move
 * memory.
 *
 * Kernels of the memory-bound families are written twice over by one template parameter: V elements at a time
 * (accesses of 16 bytes, or 8 of a 16-bit tensor beside an fp32 one, so that both stay coalesced) where
 * widths and addresses allow, and V = 1 for any others.
 */
#ifndef DINOBATCH_OPS_CUDA_ROW_ACCESS_CUH
#define DINOBATCH_OPS_CUDA_ROW_ACCESS_CUH

#include "ops/cuda/kernel_math.cuh"

enum {
    ROW_ACCESS_THREADS = 256,
    ROW_ACCESS_WARPS = ROW_ACCESS_THREADS / 32, /* rows of a block where a warp has a row */
};

/* COUNT elements as fp32; `from` aligned to them, at most to 16 bytes. */
template <int COUNT, typename T> __device__ __forceinline__ void load_f32(float (&out)[COUNT], const T *from)
{
    const int WIDTH = COUNT < VectorWidth<T>::value ? COUNT : VectorWidth<T>::value;
    const Vector<T, WIDTH> *pieces = reinterpret_cast<const Vector<T, WIDTH> *>(from);
#pragma unroll
    for (int piece = 0; piece < COUNT / WIDTH; piece++) {
        Vector<T, WIDTH> in = pieces[piece];
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            out[piece * WIDTH + k] = to_f32(in.value[k]);
    }
}

template <int COUNT, typename T> __device__ __forceinline__ void store_f32(T *to, const float (&in)[COUNT])
{
    const int WIDTH = COUNT < VectorWidth<T>::value ? COUNT : VectorWidth<T>::value;
    Vector<T, WIDTH> *pieces = reinterpret_cast<Vector<T, WIDTH> *>(to);
#pragma unroll
    for (int piece = 0; piece < COUNT / WIDTH; piece++) {
        Vector<T, WIDTH> out;
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            out.value[k] = from_f32<T>(in[piece * WIDTH + k]);
        pieces[piece] = out;
    }
}

/* The row that entry i of `rows` (NULL: the identity) selects. */
__device__ __forceinline__ int64_t row_access_index(const int32_t *rows, int64_t i)
{
    return rows ? (int64_t)__ldg(rows + i) : i;
}

/* --- host side ---------------------------------------------------------------------------------------- */

static inline bool row_access_is_act(Tensor t)
{
    return t.dtype == DTYPE_F32 || t.dtype == DTYPE_BF16 || t.dtype == DTYPE_F16;
}

/* The numbers of the selected rows, or NULL for all: `rows` selects n of `total`, int32 [n], or none where n
 * = total. An empty selection may be none, too. */
static inline const int32_t *row_access_rows(Tensor rows, int64_t n, int64_t total)
{
    if (!tensor_given(rows)) {
        CHECK(n == total || n == 0);
        return NULL;
    }
    CHECK(rows.dtype == DTYPE_I32 && tensor_count(rows) == n);
    return (const int32_t *)rows.data;
}

/* True if `columns` elements a row and the address leave every row aligned for accesses of `width` elements;
 * so for what is not given. */
static inline bool row_access_aligned(Tensor t, int64_t columns, int width)
{
    size_t bytes = (size_t)width * dtype_size(t.dtype);
    return !tensor_given(t) || (columns % width == 0 && (uintptr_t)t.data % (bytes < 16 ? bytes : 16) == 0);
}

static inline const float *row_access_f32(Tensor t)
{
    return tensor_given(t) ? tensor_f32(t) : NULL;
}

/* Blocks for n rows, a warp each. */
static inline unsigned row_access_grid(int64_t n)
{
    return (unsigned)ceil_div(n, ROW_ACCESS_WARPS);
}

/* Blocks for `work` threads of a flat vector: so many that they end at nearly the same time. Kernels stride
 * by their grid, so that fewer would do as well. */
static inline unsigned row_access_flat_grid(int64_t work)
{
    int64_t blocks = ceil_div(work, ROW_ACCESS_THREADS);
    return (unsigned)(blocks < INT32_MAX ? blocks : INT32_MAX);
}

#endif
