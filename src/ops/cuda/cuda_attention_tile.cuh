/* cuda_attention_tile.cuh - rows of one head in shared memory, and rows in a warp's registers as the tensor
 * cores want them.
 *
 * In shared memory a tile lies in blocks of columns: 64 16-bit elements, or 32 where 64 does not divide the
 * head dimension. A block's rows, 128 or 64 bytes, lie one behind the other; their 16-byte chunks change
 * places so that the eight rows that ldmatrix reads at once lie in different banks: chunk c of row r is at
 * c ^ (r & 7) of 128 bytes, at c ^ (r >> 1 & 3) of 64. That is what wgmma knows as 128-byte and 64-byte
 * swizzle, so the kernels for both kinds of tensor core instructions share the tiles.
 *
 * In registers a 16 x 16 piece of a left operand is four words per lane. Lane l needs 4 bytes of each 16: it
 * loads 8 and changes half of them with its neighbour, so that a warp reads and writes whole 32-byte sectors
 * without a detour through shared memory.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_TILE_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_TILE_CUH

#include "ops/cuda/cuda_attention_work.cuh"
#include "ops/cuda/fast_exp2.cuh"
#include "ops/cuda/tensor_core.cuh"

#include <string.h>

/* Sizes of the kernels for one head dimension. Shared memory holds ROWS rows of two operands: 68 KB and less,
 * so that three blocks share an H100's multiprocessor, two an A100's. Longer sequences stream by in two
 * stages of STAGE rows. */
template <int DIM> struct AttentionSizes {
    static const int ROWS = DIM <= 64 ? 272 : DIM == 96 ? 176 : 128;
    static const int STAGE = DIM <= 64 ? 128 : DIM == 96 ? 80 : 64;
    static const int GROUPS = ROWS / GROUP;
    static const int SPAN = DIM % 64 == 0 ? 64 : 32; /* columns of a block */
    static const int OPERAND = ROWS * DIM;           /* elements from one operand to the other */
    static const int SHARED_BYTES = 2 * OPERAND * 2;
    /* Blocks that a multiprocessor's registers must have room for: three leave 168 to a thread, two 255. */
    static const int FORWARD_BLOCKS = 3;
    static const int BACKWARD_BLOCKS = DIM <= 64 ? 3 : 2;
    /* Groups of queries that a warp works on at once in the forward pass: what it reads of keys and values
     * from shared memory serves all of them. */
    static const int FORWARD_GROUPS = DIM <= 64 ? 2 : 1;
};

template <int DIM> __device__ __forceinline__ int tile_swizzle(int row)
{
    return AttentionSizes<DIM>::SPAN == 64 ? row & 7 : row >> 1 & 3;
}

/* Starts copying rows [0, rows) from `from`, `stride` elements apart, to a tile; rows up to `padded` become
 * zeros. A thread keeps to one chunk of every AT_ONCE-th row, a multiple of 8: its swizzle stays the same. */
template <typename T, int DIM>
__device__ __forceinline__ void tile_copy(T *tile, const T *from, int stride, int rows, int padded)
{
    typedef AttentionSizes<DIM> Sizes;
    const int CHUNKS = DIM / 8, AT_ONCE = ATTENTION_THREADS / CHUNKS / 8 * 8, SPAN = Sizes::SPAN;
    int first = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, block = chunk / (SPAN / 8);
    T *target =
        tile + (block * Sizes::ROWS + first) * SPAN + (chunk % (SPAN / 8) ^ tile_swizzle<DIM>(first)) * 8;
    const T *source = from + (int64_t)first * stride + chunk * 8;
    if (first >= AT_ONCE) return;
#pragma unroll 4
    for (int row = first; row < padded; row += AT_ONCE) {
        cp_async_16(target, row < rows ? source : from, row < rows);
        target += AT_ONCE * SPAN;
        source += AT_ONCE * stride;
    }
}

/* The same for `heads` neighbouring heads of two operands: a at row `row` of the first tile, b of the second;
 * each head is padded with zeros to whole groups. One group of copies. */
template <typename T, int DIM>
__device__ __forceinline__ void tile_copy_heads(T *tiles, int row, const T *a, int a_stride, const T *b,
                                                int b_stride, int heads, int tokens)
{
    typedef AttentionSizes<DIM> Sizes;
    int padded = attention_groups(tokens) * GROUP;
    T *target = tiles + row * Sizes::SPAN;
    for (int slot = 0; slot < heads; slot++) {
        tile_copy<T, DIM>(target, a + slot * DIM, a_stride, tokens, padded);
        tile_copy<T, DIM>(target + Sizes::OPERAND, b + slot * DIM, b_stride, tokens, padded);
        target += padded * Sizes::SPAN;
    }
    cp_async_commit();
}

/* What the lanes read of 16 tile rows for ldmatrix, in elements behind the first. Either each row is a column
 * of the product and its elements are summed over (words 0, 1 of a read are of rows 0 - 7, words 2, 3 of rows
 * 8 - 15), or the rows are summed over (words 0, 1 are the first eight columns of a step, words 2, 3 the
 * next). A table in shared memory, since the compiler would keep what it can compute once in registers for
 * good. */
typedef struct {
    int along[WARP], across[WARP];
} TilePlaces;

template <int DIM> static __device__ void tile_places_fill(TilePlaces *places)
{
    const int SPAN = AttentionSizes<DIM>::SPAN;
    if (threadIdx.x >= WARP) return;
    int lane = threadIdx.x, row = lane % 8 + lane / 16 * 8;
    places->along[lane] = row * SPAN + (lane / 8 % 2 ^ tile_swizzle<DIM>(row)) * 8;
    row = lane % 16;
    places->across[lane] = row * SPAN + (lane / 16 ^ tile_swizzle<DIM>(row)) * 8;
}

/* A lane's place moved on by `group` times 16 rows and `step` times 16 elements. The swizzle works on the
 * address: tiles are aligned to 128 bytes. */
template <typename T, int DIM> __device__ __forceinline__ const T *tile_at(const T *lane, int group, int step)
{
    const int SPAN = AttentionSizes<DIM>::SPAN, BLOCK = AttentionSizes<DIM>::ROWS * SPAN;
    uintptr_t place = (uintptr_t)lane ^ (uintptr_t)(step * 16 % SPAN * sizeof(T));
    return (const T *)place + group * GROUP * SPAN + step * 16 / SPAN * BLOCK;
}

/* Two neighbouring elements, the first in the lower half. */
__device__ __forceinline__ uint32_t pack_pair(float low, float high, bf16)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
__device__ __forceinline__ uint32_t pack_pair(float low, float high, fp16)
{
    __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

template <typename T> __device__ __forceinline__ float pair_dot(uint32_t x, uint32_t y)
{
    T a[2], b[2];
    memcpy(a, &x, sizeof a);
    memcpy(b, &y, sizeof b);
    return to_f32(a[0]) * to_f32(b[0]) + to_f32(a[1]) * to_f32(b[1]);
}

/* c[0], c[1] += a . b: 16 columns, eight in each. */
template <typename T>
__device__ __forceinline__ void mma_pair(float (*c)[4], const uint32_t a[4], const uint32_t b[4])
{
    mma_m16n8k16(c[0], a, b, T());
    mma_m16n8k16(c[1], a, b + 2, T());
}

/* Results of a product, 16 columns of them, as the left operand of the next. */
template <typename T> __device__ __forceinline__ void left_operand(uint32_t a[4], const float (*c)[4])
{
    a[0] = pack_pair(c[0][0], c[0][1], T());
    a[1] = pack_pair(c[0][2], c[0][3], T());
    a[2] = pack_pair(c[1][0], c[1][1], T());
    a[3] = pack_pair(c[1][2], c[1][3], T());
}

/* Columns from `valid` on of 8 COLUMNS become `value`. */
template <int COLUMNS> __device__ __forceinline__ void mask_columns(float (*c)[4], int valid, float value)
{
    int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (8 * j + column + e % 2 >= valid) c[j][e] = value;
}

template <int DIM> __device__ __forceinline__ void rows_zero(float (*results)[4])
{
#pragma unroll
    for (int j = 0; j < DIM / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            results[j][e] = 0.0f;
}

/* Where lane l keeps its 8 bytes of 16 columns. */
__device__ __forceinline__ int pair_column(int lane)
{
    return lane % 2 * 8 + lane % 4 / 2 * 4;
}

/* 16 rows of DIM elements as loaded: words 0, 1 of each step are of row l / 4, words 2, 3 of row l / 4 + 8.
 * Rows from `valid` on are zeros. */
template <typename T, int DIM>
__device__ __forceinline__ void rows_load(uint32_t raw[DIM / 16][4], const T *from, int stride, int valid)
{
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = lane / 4 + half * 8;
        const T *source = from + (int64_t)row * stride + pair_column(lane);
#pragma unroll
        for (int step = 0; step < DIM / 16; step++) {
            uint2 words = make_uint2(0, 0);
            if (row < valid) words = *reinterpret_cast<const uint2 *>(source + step * 16);
            raw[step][2 * half] = words.x;
            raw[step][2 * half + 1] = words.y;
        }
    }
}

/* In place: a left operand from rows as loaded. */
template <int STEPS> __device__ __forceinline__ void rows_to_left(uint32_t raw[STEPS][4])
{
    bool odd = threadIdx.x % 2;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        uint32_t *w = raw[step];
        uint32_t got0 = __shfl_xor_sync(ALL_LANES, odd ? w[0] : w[1], 1), kept0 = odd ? w[1] : w[0];
        uint32_t got1 = __shfl_xor_sync(ALL_LANES, odd ? w[2] : w[3], 1), kept1 = odd ? w[3] : w[2];
        w[0] = odd ? got0 : kept0;
        w[1] = odd ? got1 : kept1;
        w[2] = odd ? kept0 : got0;
        w[3] = odd ? kept1 : got1;
    }
}

/* Products of two sets of rows as loaded, summed over all columns: of row l / 4 and row l / 4 + 8, to all
 * lanes of them. */
template <typename T, int STEPS>
__device__ __forceinline__ void rows_dot(float dot[2], const uint32_t a[STEPS][4], const uint32_t b[STEPS][4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = 0.0f;
#pragma unroll
        for (int step = 0; step < STEPS; step++)
            sum += pair_dot<T>(a[step][2 * half], b[step][2 * half]) +
                   pair_dot<T>(a[step][2 * half + 1], b[step][2 * half + 1]);
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        dot[half] = sum + __shfl_xor_sync(ALL_LANES, sum, 2);
    }
}

/* Results of products, times the factor of their row, rounded and stored; rows from `valid` on are not. */
template <typename T, int DIM>
__device__ __forceinline__ void rows_store(T *to, int stride, int valid, const float (*results)[4],
                                           float factor0, float factor1)
{
    int lane = threadIdx.x % WARP;
    bool odd = lane % 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = lane / 4 + half * 8;
        float factor = half ? factor1 : factor0;
        T *target = to + (int64_t)row * stride + pair_column(lane);
#pragma unroll
        for (int step = 0; step < DIM / 16; step++) {
            const float *l = results[2 * step] + 2 * half, *r = results[2 * step + 1] + 2 * half;
            uint32_t left = pack_pair(factor * l[0], factor * l[1], T());
            uint32_t right = pack_pair(factor * r[0], factor * r[1], T());
            uint32_t got = __shfl_xor_sync(ALL_LANES, odd ? left : right, 1);
            uint2 words = odd ? make_uint2(got, right) : make_uint2(left, got);
            if (row < valid) *reinterpret_cast<uint2 *>(target + step * 16) = words;
        }
    }
}

#endif
