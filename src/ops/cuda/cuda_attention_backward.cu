/* cuda_attention_backward.cu - attention_backward on the tensor cores, deterministic, without atomics.
 *
 * Source: Dao, FlashAttention-2, arXiv:2307.08691, section 2.3.2: P again from the log-sum-exp, dV = P^T dO,
 * dS = P (dO V^T - delta), dQ = scale dS K, dK = scale dS^T Q, delta = <dO, O> of each row.
 *
 * Who sums? dK and dV add up over queries, dQ over keys. One loop that makes all three needs five products,
 * but must collect one of the sums across warps: by atomics (another result every time) or through shared
 * memory with a barrier per tile. Here a piece of work is gone through twice, each time with rows of one side
 * kept by their warp: first queries (S, dP, dQ), then keys (S, dP, dV, dK). Seven products, and each sum is
 * made by one warp in order, without waiting for others. A sequence that fits shared memory (272 tokens at
 * head_dim 64) has both halves done by the same block, so that tensors come from device memory once: the
 * second reading is of the L2 cache, and delta never leaves shared memory. Longer ones have their second half
 * in a second launch.
 *
 * Costs, by count and not by measurement, at ViT-L/14, 64 sequences of 257 and 256 of 50 tokens, 16 heads of
 * 64, bf16: qkv, out, dout are read and dqkv written once, 480 MB, 160 us at the 3 TB/s of an H100. Useful
 * products 10 len^2 D = 50 GFLOP; seven of them, lengths rounded up to 16, are 83. 16 queries x 16 keys take
 * 56 mma (86 clocks of a multiprocessor at some 620 TFLOP/s; five products: 61), 14 KB of shared memory
 * (112), 512 exponentials (32), 225 instructions (56): 180 us if shared memory decides. So the memory floor
 * and the compute floor are close, and the fewer barriers there are the better they overlap. Two groups of
 * rows for each warp would halve what shared memory must deliver, but then sums and kept rows alone take 192
 * registers, and two blocks share a multiprocessor in place of three. For 257 tokens tiles of 64 x 128 would
 * make 1.66 times as many products as rounding to 16 does.
 */
#include "ops/cuda/cuda_attention_pass.cuh"

/* Results of S and dP products become P and dS: of a column or row with these statistics. */
static __device__ __forceinline__ void differentiate(float &s, float &dp, float factor, float log_sum,
                                                     float delta)
{
    s = fast_exp2(fmaf(s, factor, -log_sum));
    dp = s * (dp - delta);
}

/* First half: a warp keeps queries, keys and values come by. */
template <typename T, int DIM> struct BackwardQueries {
    static const int KEPT = 1;
    uint32_t query[DIM / 16][4], dout[DIM / 16][4];
    float dquery[DIM / 8][4];
    float log_sum[2], delta[2]; /* of rows l / 4 and l / 4 + 8; log_sum / ln 2 */

    static __device__ __forceinline__ void bring(const AttentionArgs &args,
                                                 const volatile AttentionPiece &piece,
                                                 AttentionShared<T> shared, int row, int token, int tokens)
    {
        int stride = 3 * args.width;
        const T *keys =
            (const T *)args.qkv + (int64_t)(piece.first + token) * stride + args.width + piece.head * DIM;
        tile_copy_heads<T, DIM>(shared.tiles, row, keys, stride, keys + args.width, stride, piece.heads,
                                tokens);
    }

    /* delta is made here, and handed on to the second half. */
    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &piece,
                                         AttentionShared<T> shared, const AttentionTask &task)
    {
        int64_t row = task.row, column = task.head * DIM;
        uint32_t out[DIM / 16][4];
        rows_load<T, DIM>(dout, (const T *)args.dout + row * args.width + column, args.width, task.left);
        rows_load<T, DIM>(out, (const T *)args.out + row * args.width + column, args.width, task.left);
        rows_load<T, DIM>(query, (const T *)args.qkv + row * 3 * args.width + column, 3 * args.width,
                          task.left);
        rows_dot<T, DIM / 16>(delta, dout, out);
        rows_to_left<DIM / 16>(dout);
        rows_to_left<DIM / 16>(query);
        rows_zero<DIM>(dquery);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int lane = threadIdx.x % WARP, r = lane / 4 + half * 8;
            bool valid = r < task.left;
            log_sum[half] = valid ? args.lse[(row + r) * args.heads + task.head] * LOG2_E : 0.0f;
            if (lane % 4 != 0 || task.left <= 0) continue;
            if (piece.whole)
                shared.stats[task.place + r] = make_float2(log_sum[half], delta[half]);
            else if (valid)
                args.delta[(int64_t)task.head * args.tokens + row + r] = delta[half];
        }
    }

    /* 8 COLUMNS keys, of which `valid` exist. */
    template <int COLUMNS>
    __device__ __forceinline__ void step(const T *keys, const T *keys_across, int valid, float factor)
    {
        float s[COLUMNS][4] = {}, dp[COLUMNS][4] = {};
        uint32_t b[4], ds[4];
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++)
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) {
                ldmatrix_x4(b, tile_at<T, DIM>(keys, pair, k));
                mma_pair<T>(s + 2 * pair, query[k], b);
                ldmatrix_x4(b, tile_at<T, DIM>(keys, pair, k) + AttentionSizes<DIM>::ROWS * DIM);
                mma_pair<T>(dp + 2 * pair, dout[k], b);
            }
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                differentiate(s[j][e], dp[j][e], factor, log_sum[e / 2], delta[e / 2]);
        if (valid < 8 * COLUMNS)
            mask_columns<COLUMNS>(dp, valid, 0.0f); /* exp(0 - lse) may be infinite there */
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++) {
            left_operand<T>(ds, dp + 2 * pair);
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) {
                ldmatrix_x4_trans(b, tile_at<T, DIM>(keys_across, pair, k));
                mma_pair<T>(dquery + 2 * k, ds, b);
            }
        }
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        const int STEP = 2 * GROUP;
        const T *keys = shared.template along<DIM>(row);
        const T *across = shared.template across<DIM>(row);
#pragma unroll 1
        for (; tokens > GROUP; tokens -= STEP, keys += STEP * DIM, across += STEP * DIM)
            step<STEP / 8>(keys, across, tokens, args.scale_log2);
        if (tokens > 0) step<GROUP / 8>(keys, across, tokens, args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        rows_store<T, DIM>((T *)args.dqkv + (int64_t)task.row * 3 * args.width + task.head * DIM,
                           3 * args.width, task.left, dquery, args.scale, args.scale);
    }
};

/* Second half: a warp keeps keys and values, queries and output gradients come by. Products are transposed:
 * rows are keys, columns queries. */
template <typename T, int DIM> struct BackwardKeys {
    static const int KEPT = 1;
    uint32_t key[DIM / 16][4], value[DIM / 16][4];
    float dkey[DIM / 8][4], dvalue[DIM / 8][4];

    static __device__ __forceinline__ void bring(const AttentionArgs &args,
                                                 const volatile AttentionPiece &piece,
                                                 AttentionShared<T> shared, int row, int token, int tokens)
    {
        int64_t first = piece.first + token, column = piece.head * DIM;
        tile_copy_heads<T, DIM>(shared.tiles, row, (const T *)args.qkv + first * 3 * args.width + column,
                                3 * args.width, (const T *)args.dout + first * args.width + column,
                                args.width, piece.heads, tokens);
        if (piece.whole) return; /* the first half left the statistics there */
        for (int i = threadIdx.x; i < attention_groups(tokens) * GROUP; i += ATTENTION_THREADS) {
            float2 stats = make_float2(0.0f, 0.0f);
            if (i < tokens)
                stats = make_float2(args.lse[(first + i) * args.heads + piece.head] * LOG2_E,
                                    args.delta[(int64_t)piece.head * args.tokens + first + i]);
            shared.stats[row + i] = stats;
        }
    }

    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &,
                                         AttentionShared<T>, const AttentionTask &task)
    {
        const T *from =
            (const T *)args.qkv + (int64_t)task.row * 3 * args.width + args.width + task.head * DIM;
        rows_load<T, DIM>(key, from, 3 * args.width, task.left);
        rows_load<T, DIM>(value, from + args.width, 3 * args.width, task.left);
        rows_to_left<DIM / 16>(key);
        rows_to_left<DIM / 16>(value);
        rows_zero<DIM>(dkey);
        rows_zero<DIM>(dvalue);
    }

    /* 16 queries. Those behind the end are zeros in all that they are multiplied with. */
    __device__ __forceinline__ void step(const T *queries, const T *queries_across, const float2 *stats,
                                         float factor)
    {
        const int DOUT = AttentionSizes<DIM>::ROWS * DIM;
        float s[2][4] = {}, dp[2][4] = {};
        uint32_t b[4], a[4];
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            ldmatrix_x4(b, tile_at<T, DIM>(queries, 0, k));
            mma_pair<T>(s, key[k], b);
            ldmatrix_x4(b, tile_at<T, DIM>(queries, 0, k) + DOUT);
            mma_pair<T>(dp, value[k], b);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float4 two = *reinterpret_cast<const float4 *>(stats + 8 * j); /* of this lane's columns */
#pragma unroll
            for (int e = 0; e < 4; e++)
                differentiate(s[j][e], dp[j][e], factor, e % 2 ? two.z : two.x, e % 2 ? two.w : two.y);
        }
        left_operand<T>(a, s);
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            ldmatrix_x4_trans(b, tile_at<T, DIM>(queries_across, 0, k) + DOUT);
            mma_pair<T>(dvalue + 2 * k, a, b);
        }
        left_operand<T>(a, dp);
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            ldmatrix_x4_trans(b, tile_at<T, DIM>(queries_across, 0, k));
            mma_pair<T>(dkey + 2 * k, a, b);
        }
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        const T *queries = shared.template along<DIM>(row);
        const T *across = shared.template across<DIM>(row);
        const float2 *stats = shared.stats + row + threadIdx.x % 4 * 2;
#pragma unroll 1
        for (; tokens > 0; tokens -= GROUP, queries += GROUP * DIM, across += GROUP * DIM, stats += GROUP)
            step(queries, across, stats, args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        T *to = (T *)args.dqkv + (int64_t)task.row * 3 * args.width + args.width + task.head * DIM;
        rows_store<T, DIM>(to, 3 * args.width, task.left, dkey, args.scale, args.scale);
        rows_store<T, DIM>(to + args.width, 3 * args.width, task.left, dvalue, 1.0f, 1.0f);
    }
};

/* All of whole sequences and the first half of long ones; or, with split.long_only, the second half of long
 * ones. */
template <typename T, int DIM>
static __global__ void __launch_bounds__(ATTENTION_THREADS, AttentionSizes<DIM>::BACKWARD_BLOCKS)
    attention_backward_kernel(AttentionArgs args, AttentionSplit split)
{
    KERNEL_SHARED(T, tiles);
    __shared__ AttentionWork work;
    __shared__ TilePlaces places;
    __shared__ __align__(16) float2 stats[AttentionSizes<DIM>::ROWS];
    AttentionShared<T> shared = {tiles, stats, &places};
    tile_places_fill<DIM>(&places);
    attention_work_begin(&work, split, args);
    while (work.piece.tokens > 0) {
        if (!split.long_only) {
            attention_pass<T, DIM, BackwardQueries<T, DIM>>(
                args, work.piece, shared, [&] { attention_work_foresee(&work, split, args); });
            __syncthreads(); /* the queries overwrite the keys, and each warp reads all statistics */
        }
        if (work.piece.whole || split.long_only)
            attention_pass<T, DIM, BackwardKeys<T, DIM>>(args, work.piece, shared, [&] {
                if (split.long_only) attention_work_foresee(&work, split, args);
            });
        attention_work_advance(&work);
    }
}

template <typename T, int DIM> struct BackwardLauncher {
    static void launch(const OpsCuda *cuda, const AttentionArgs &args)
    {
        typedef AttentionSizes<DIM> Sizes;
        AttentionSplit split = attention_work_split(args, Sizes::GROUPS, ATTENTION_WARPS, false);
        size_t all_shared =
            Sizes::SHARED_BYTES + Sizes::ROWS * sizeof(float2) + sizeof(AttentionWork) + sizeof(TilePlaces);
        unsigned grid = attention_work_grid(cuda, args, split, Sizes::BACKWARD_BLOCKS, all_shared);
        KERNEL_ALLOW_SHARED((attention_backward_kernel<T, DIM>), Sizes::SHARED_BYTES);
        KERNEL_LAUNCH((attention_backward_kernel<T, DIM>), grid, ATTENTION_THREADS, Sizes::SHARED_BYTES,
                      cuda->stream, args, split);
        if (args.tokens <= Sizes::ROWS || cuda->limits.max_seqlen <= Sizes::ROWS) return; /* none is long */
        split.long_only = true;
        KERNEL_LAUNCH((attention_backward_kernel<T, DIM>), grid, ATTENTION_THREADS, Sizes::SHARED_BYTES,
                      cuda->stream, args, split);
    }
};

void cuda_attention_backward_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args)
{
    attention_dispatch<BackwardLauncher>(cuda, dtype, args);
}
