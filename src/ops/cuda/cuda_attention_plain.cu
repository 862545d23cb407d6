/* cuda_attention_plain.cu - attention without tensor cores: fp32, and any head dimension up to 256.
 *
 * The same mathematics as the CPU's twin, in fp32: what runs of fp32 need, and the odd shapes of tests. A
 * block of four warps has 16 rows of one head, four to a warp, and meets the rows of the other side in tiles
 * of 32, one to a lane: scores are dot products along the head dimension, one row of the tile per lane; sums
 * over the tile's rows have one column of the result per lane. Tiles are fp32 in shared memory, an odd number
 * of words to a row, so that lanes read rows as well as columns from different banks. Every multiplication
 * costs about one read of shared memory, a quarter of the fp32 rate at best: this file is for being right,
 * not for speed.
 */
#include "ops/cuda/cuda_attention_work.cuh"

enum {
    KEPT_ROWS = GROUP / ATTENTION_WARPS, /* of a warp */
    PARTS = ATTENTION_PLAIN_DIM / WARP,  /* columns of a lane */
    PLAIN_BLOCKS = 4,                    /* of a multiprocessor: 128 registers a thread */
};

/* A head's columns of one tensor. */
template <typename T> struct HeadRows {
    const T *first; /* of the sequence's first row */
    int stride;
};

template <typename T>
static __device__ HeadRows<T> head_rows(const void *tensor, const AttentionArgs &args,
                                        const AttentionPiece &piece, int thirds, int third)
{
    int stride = thirds * args.width;
    const T *first =
        (const T *)tensor + (int64_t)piece.first * stride + third * args.width + piece.head * args.head_dim;
    return HeadRows<T>{first, stride};
}

/* Rows [row, row + count) as fp32 to tile[count, pitch]; zeros behind the sequence's end. */
template <typename T>
static __device__ void tile_load(float *tile, int pitch, HeadRows<T> from, int row, int count, int tokens,
                                 int dim)
{
    for (int i = threadIdx.x; i < count * dim; i += ATTENTION_THREADS) {
        int r = i / dim, d = i % dim;
        tile[r * pitch + d] =
            row + r < tokens ? to_f32(from.first[(int64_t)(row + r) * from.stride + d]) : 0.0f;
    }
}

/* dots[r] = the warp's row r of kept[16, pitch] times this lane's row of tile. */
static __device__ void row_dots(float dots[KEPT_ROWS], const float *kept, const float *tile, int pitch,
                                int dim)
{
    const float *own = kept + threadIdx.x / WARP * KEPT_ROWS * pitch,
                *other = tile + threadIdx.x % WARP * pitch;
#pragma unroll
    for (int r = 0; r < KEPT_ROWS; r++)
        dots[r] = 0.0f;
    for (int d = 0; d < dim; d++) {
        float x = other[d];
#pragma unroll
        for (int r = 0; r < KEPT_ROWS; r++)
            dots[r] = fmaf(own[r * pitch + d], x, dots[r]);
    }
}

/* sums[r] += over the tile's rows t: weights[r] of lane t times row t; part j of a lane is column 32 j +
 * lane. */
static __device__ void weighted_rows(float sums[KEPT_ROWS][PARTS], const float weights[KEPT_ROWS],
                                     const float *tile, int pitch, int dim)
{
    int lane = threadIdx.x % WARP;
    for (int t = 0; t < WARP; t++) {
        float w[KEPT_ROWS];
#pragma unroll
        for (int r = 0; r < KEPT_ROWS; r++)
            w[r] = __shfl_sync(ALL_LANES, weights[r], t);
#pragma unroll
        for (int j = 0; j < PARTS; j++) {
            if (j * WARP >= dim) break;
            float x = j * WARP + lane < dim ? tile[t * pitch + j * WARP + lane] : 0.0f;
#pragma unroll
            for (int r = 0; r < KEPT_ROWS; r++)
                sums[r][j] = fmaf(w[r], x, sums[r][j]);
        }
    }
}

/* Rows `row` and on of a head of an output tensor = factor[r] * sums[r]. */
template <typename T>
static __device__ void rows_put(HeadRows<T> to, int row, int tokens, int dim,
                                const float sums[KEPT_ROWS][PARTS], const float factor[KEPT_ROWS])
{
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int r = 0; r < KEPT_ROWS; r++)
#pragma unroll
        for (int j = 0; j < PARTS; j++)
            if (row + r < tokens && j * WARP + lane < dim)
                const_cast<T *>(to.first)[(int64_t)(row + r) * to.stride + j * WARP + lane] =
                    from_f32<T>(factor[r] * sums[r][j]);
}

/* What a block keeps in shared memory, all [rows, dim + 1 or 2] fp32: odd. */
typedef struct {
    int pitch;
    float *kept_a, *kept_b; /* [16] rows of this block */
    float *tile_a, *tile_b; /* [32] rows of the other side */
} PlainShared;

static __host__ __device__ int plain_pitch(int dim)
{
    return dim | 1;
}

static __device__ PlainShared plain_shared(float *memory, int dim)
{
    int pitch = plain_pitch(dim);
    float *tiles = memory + 2 * GROUP * pitch;
    return PlainShared{pitch, memory, memory + GROUP * pitch, tiles, tiles + WARP * pitch};
}

template <typename T>
static __global__ void __launch_bounds__(ATTENTION_THREADS, PLAIN_BLOCKS)
    plain_forward_kernel(AttentionArgs args, AttentionSplit split)
{
    KERNEL_SHARED(float, memory);
    __shared__ AttentionWork work;
    PlainShared shared = plain_shared(memory, args.head_dim);
    int dim = args.head_dim, pitch = shared.pitch, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    attention_work_begin(&work, split, args);
    while (work.piece.tokens > 0) {
        AttentionPiece piece = work.piece;
        attention_work_foresee(&work, split, args);
        int row = piece.group * GROUP;
        float sums[KEPT_ROWS][PARTS] = {}, top[KEPT_ROWS], total[KEPT_ROWS] = {}, s[KEPT_ROWS];
        for (int r = 0; r < KEPT_ROWS; r++)
            top[r] = -1e30f; /* below any score */
        tile_load(shared.kept_a, pitch, head_rows<T>(args.qkv, args, piece, 3, 0), row, GROUP, piece.tokens,
                  dim);
        for (int key = 0; key < piece.tokens; key += WARP) {
            tile_load(shared.tile_a, pitch, head_rows<T>(args.qkv, args, piece, 3, 1), key, WARP,
                      piece.tokens, dim);
            tile_load(shared.tile_b, pitch, head_rows<T>(args.qkv, args, piece, 3, 2), key, WARP,
                      piece.tokens, dim);
            __syncthreads();
            row_dots(s, shared.kept_a, shared.tile_a, pitch, dim);
            for (int r = 0; r < KEPT_ROWS; r++) {
                bool valid = key + lane < piece.tokens;
                float score = s[r] * args.scale, now = fmaxf(top[r], warp_max(valid ? score : top[r]));
                float shrink = expf(top[r] - now);
                s[r] = valid ? expf(score - now) : 0.0f;
                total[r] = total[r] * shrink + warp_sum(s[r]);
                top[r] = now;
                for (int j = 0; j < PARTS; j++)
                    sums[r][j] *= shrink;
            }
            weighted_rows(sums, s, shared.tile_b, pitch, dim);
            __syncthreads();
        }
        row += warp * KEPT_ROWS;
        for (int r = 0; r < KEPT_ROWS; r++) {
            s[r] = 1.0f / total[r];
            if (lane == 0 && row + r < piece.tokens)
                args.lse[(int64_t)(piece.first + row + r) * args.heads + piece.head] =
                    top[r] + logf(total[r]);
        }
        rows_put(head_rows<T>(args.out, args, piece, 1, 0), row, piece.tokens, dim, sums, s);
        attention_work_advance(&work);
    }
}

/* log-sum-exp and delta of row `row` of the piece's sequence; zeros behind its end. */
static __device__ float2 row_stats(const AttentionArgs &args, const AttentionPiece &piece, int row)
{
    if (row >= piece.tokens) return make_float2(0.0f, 0.0f);
    int64_t at = piece.first + row;
    return make_float2(args.lse[at * args.heads + piece.head],
                       args.delta[(int64_t)piece.head * args.tokens + at]);
}

/* delta = <dout, out> of every row and head, one warp each. */
template <typename T>
static __global__ void __launch_bounds__(ATTENTION_THREADS, PLAIN_BLOCKS)
    plain_delta_kernel(AttentionArgs args)
{
    int lane = threadIdx.x % WARP, warp = blockIdx.x * ATTENTION_WARPS + threadIdx.x / WARP;
    for (int i = warp; i < args.tokens * args.heads; i += gridDim.x * ATTENTION_WARPS) {
        int row = i / args.heads, head = i % args.heads;
        int64_t at = (int64_t)row * args.width + head * args.head_dim;
        float sum = 0.0f;
        for (int d = lane; d < args.head_dim; d += WARP)
            sum += to_f32(((const T *)args.dout)[at + d]) * to_f32(((const T *)args.out)[at + d]);
        sum = warp_sum(sum);
        if (lane == 0) args.delta[(int64_t)head * args.tokens + row] = sum;
    }
}

/* OF_KEYS: rows of the block are keys and values, queries and dout come by, results are dkeys and dvalues;
 * else the rows are queries and dout, keys and values come by, and the result is dqueries. Either way S = a .
 * a', dP = b . b'. */
template <typename T, bool OF_KEYS>
static __global__ void __launch_bounds__(ATTENTION_THREADS, PLAIN_BLOCKS)
    plain_backward_kernel(AttentionArgs args, AttentionSplit split)
{
    KERNEL_SHARED(float, memory);
    __shared__ AttentionWork work;
    PlainShared shared = plain_shared(memory, args.head_dim);
    int dim = args.head_dim, pitch = shared.pitch, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    attention_work_begin(&work, split, args);
    while (work.piece.tokens > 0) {
        AttentionPiece piece = work.piece;
        attention_work_foresee(&work, split, args);
        HeadRows<T> query = head_rows<T>(args.qkv, args, piece, 3, 0),
                    key = head_rows<T>(args.qkv, args, piece, 3, 1);
        HeadRows<T> dout = head_rows<T>(args.dout, args, piece, 1, 0),
                    value = head_rows<T>(args.qkv, args, piece, 3, 2);
        int row = piece.group * GROUP, own = row + warp * KEPT_ROWS;
        float sums_a[KEPT_ROWS][PARTS] = {}, sums_b[KEPT_ROWS][PARTS] = {}, p[KEPT_ROWS], dp[KEPT_ROWS];
        tile_load(shared.kept_a, pitch, OF_KEYS ? key : query, row, GROUP, piece.tokens, dim);
        tile_load(shared.kept_b, pitch, OF_KEYS ? value : dout, row, GROUP, piece.tokens, dim);
        for (int other = 0; other < piece.tokens; other += WARP) {
            tile_load(shared.tile_a, pitch, OF_KEYS ? query : key, other, WARP, piece.tokens, dim);
            tile_load(shared.tile_b, pitch, OF_KEYS ? dout : value, other, WARP, piece.tokens, dim);
            __syncthreads();
            row_dots(p, shared.kept_a, shared.tile_a, pitch, dim);
            row_dots(dp, shared.kept_b, shared.tile_b, pitch, dim);
            for (int r = 0; r < KEPT_ROWS; r++) {
                float2 stats = row_stats(args, piece, OF_KEYS ? other + lane : own + r);
                bool valid = other + lane < piece.tokens && own + r < piece.tokens;
                p[r] = valid ? expf(p[r] * args.scale - stats.x) : 0.0f;
                dp[r] = p[r] * (dp[r] - stats.y);
            }
            weighted_rows(sums_a, dp, shared.tile_a, pitch, dim);
            if (OF_KEYS) weighted_rows(sums_b, p, shared.tile_b, pitch, dim);
            __syncthreads();
        }
        for (int r = 0; r < KEPT_ROWS; r++) {
            p[r] = args.scale;
            dp[r] = 1.0f;
        }
        rows_put(head_rows<T>(args.dqkv, args, piece, 3, OF_KEYS ? 1 : 0), own, piece.tokens, dim, sums_a, p);
        if (OF_KEYS) rows_put(head_rows<T>(args.dqkv, args, piece, 3, 2), own, piece.tokens, dim, sums_b, dp);
        attention_work_advance(&work);
    }
}

/* Every sequence is long: one group of rows a block. */
static AttentionSplit plain_split(const AttentionArgs &args)
{
    return attention_work_split(args, 0, 1, false);
}

static size_t plain_shared_bytes(const AttentionArgs &args)
{
    return (size_t)(2 * (GROUP + WARP) * plain_pitch(args.head_dim)) * sizeof(float);
}

static unsigned plain_grid(const OpsCuda *cuda, const AttentionArgs &args)
{
    return attention_work_grid(cuda, args, plain_split(args), PLAIN_BLOCKS,
                               plain_shared_bytes(args) + sizeof(AttentionWork));
}

template <typename T> static void plain_forward(const OpsCuda *cuda, const AttentionArgs &args)
{
    size_t bytes = plain_shared_bytes(args);
    KERNEL_ALLOW_SHARED((plain_forward_kernel<T>), bytes);
    KERNEL_LAUNCH((plain_forward_kernel<T>), plain_grid(cuda, args), ATTENTION_THREADS, bytes, cuda->stream,
                  args, plain_split(args));
}

template <typename T> static void plain_backward(const OpsCuda *cuda, const AttentionArgs &args)
{
    size_t bytes = plain_shared_bytes(args);
    unsigned grid = plain_grid(cuda, args);
    KERNEL_ALLOW_SHARED((plain_backward_kernel<T, false>), bytes);
    KERNEL_ALLOW_SHARED((plain_backward_kernel<T, true>), bytes);
    KERNEL_LAUNCH((plain_delta_kernel<T>), (unsigned)(2 * PLAIN_BLOCKS * cuda->multiprocessors),
                  ATTENTION_THREADS, 0, cuda->stream, args);
    KERNEL_LAUNCH((plain_backward_kernel<T, false>), grid, ATTENTION_THREADS, bytes, cuda->stream, args,
                  plain_split(args));
    KERNEL_LAUNCH((plain_backward_kernel<T, true>), grid, ATTENTION_THREADS, bytes, cuda->stream, args,
                  plain_split(args));
}

void cuda_attention_plain_forward(const OpsCuda *cuda, Dtype dtype, AttentionArgs args)
{
    DISPATCH_ACT(dtype, T, plain_forward<T>(cuda, args));
}

void cuda_attention_plain_backward(const OpsCuda *cuda, Dtype dtype, AttentionArgs args)
{
    DISPATCH_ACT(dtype, T, plain_backward<T>(cuda, args));
}
