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
#include "ops/cuda/cuda_attention_backward.cuh"

/* First half: a warp keeps queries, keys and values come by. */
template <typename T, int DIM> struct BackwardQueries : BackwardQueryRows<T, DIM> {
    static const int PARTIES = ATTENTION_WARPS, KEPT = 1;

    static __device__ __forceinline__ void arrived()
    {
    }

    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &piece,
                                         AttentionShared<T> shared, const AttentionTask &task)
    {
        this->take(args, piece, shared, task);
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
                mma_pair<T>(s + 2 * pair, this->query[k], b);
                ldmatrix_x4(b, tile_at<T, DIM>(keys, pair, k) + AttentionSizes<DIM>::OPERAND);
                mma_pair<T>(dp + 2 * pair, this->dout[k], b);
            }
        this->template gradients<COLUMNS>(s, dp, valid, factor);
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++) {
            left_operand<T>(ds, dp + 2 * pair);
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) {
                ldmatrix_x4_trans(b, tile_at<T, DIM>(keys_across, pair, k));
                mma_pair<T>(this->dquery + 2 * k, ds, b);
            }
        }
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        const int STEP = 2 * GROUP, SPAN = AttentionSizes<DIM>::SPAN;
        const T *keys = shared.template along<DIM>(row);
        const T *across = shared.template across<DIM>(row);
#pragma unroll 1
        for (; tokens > GROUP; tokens -= STEP, keys += STEP * SPAN, across += STEP * SPAN)
            step<STEP / 8>(keys, across, tokens, args.scale_log2);
        if (tokens > 0) step<GROUP / 8>(keys, across, tokens, args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        this->give(args, task);
    }
};

/* Second half: a warp keeps keys and values, queries and output gradients come by. */
template <typename T, int DIM> struct BackwardKeys : BackwardKeyRows<T, DIM> {
    static const int PARTIES = ATTENTION_WARPS, KEPT = 1;

    static __device__ __forceinline__ void arrived()
    {
    }

    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &,
                                         AttentionShared<T>, const AttentionTask &task)
    {
        this->take(args, task);
    }

    /* 16 queries. */
    __device__ __forceinline__ void step(const T *queries, const T *queries_across, const float2 *stats,
                                         float factor)
    {
        const int DOUT = AttentionSizes<DIM>::OPERAND;
        float s[2][4] = {}, dp[2][4] = {};
        uint32_t b[4], a[4];
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            ldmatrix_x4(b, tile_at<T, DIM>(queries, 0, k));
            mma_pair<T>(s, this->key[k], b);
            ldmatrix_x4(b, tile_at<T, DIM>(queries, 0, k) + DOUT);
            mma_pair<T>(dp, this->value[k], b);
        }
        this->template gradients<2>(s, dp, stats, factor);
        left_operand<T>(a, s);
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            ldmatrix_x4_trans(b, tile_at<T, DIM>(queries_across, 0, k) + DOUT);
            mma_pair<T>(this->dvalue + 2 * k, a, b);
        }
        left_operand<T>(a, dp);
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            ldmatrix_x4_trans(b, tile_at<T, DIM>(queries_across, 0, k));
            mma_pair<T>(this->dkey + 2 * k, a, b);
        }
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        const int SPAN = AttentionSizes<DIM>::SPAN;
        const T *queries = shared.template along<DIM>(row);
        const T *across = shared.template across<DIM>(row);
        const float2 *stats = shared.stats + row + threadIdx.x % 4 * 2;
#pragma unroll 1
        for (; tokens > 0; tokens -= GROUP, queries += GROUP * SPAN, across += GROUP * SPAN, stats += GROUP)
            step(queries, across, stats, args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        this->give(args, task);
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
