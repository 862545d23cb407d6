/* cuda_attention_forward.cu - attention_forward on the tensor cores: FlashAttention-2 over a packed batch.
 *
 * Source: Dao, FlashAttention-2, arXiv:2307.08691, algorithm 1 (online softmax, each warp has query rows of
 * its own). Products by mma.sync, so it runs on sm_80 and later; wgmma is deliberately not here.
 *
 * A block brings keys and values of its piece of work (cuda_attention_work.cuh) to shared memory, once from
 * device memory: 272 rows of both for head_dim 64 are 68 KB. From there on its warps do not wait for each
 * other: a warp takes 16 or 32 query rows straight from memory to registers and goes through all keys in
 * steps of 32, the last of 16 where that is enough; what lies behind the sequence's end in those 16 is zeros
 * (keys, values) and masked. While one block waits for its rows, the others of the multiprocessor compute.
 *
 * Costs, by count and not by measurement, at ViT-L/14, 64 sequences of 257 and 256 of 50 tokens, 16 heads of
 * 64, bf16: qkv is read and out written once, 240 MB, 80 us at the 3 TB/s of an H100. Products 4 len^2 D =
 * 19.9 GFLOP, 23.7 with lengths rounded up to 16 (tiles of 64 would make it 31): 38 us at some 620 TFLOP/s of
 * mma.sync. 16 queries x 16 keys take 16 mma (25 clocks of a multiprocessor), 256 exponentials (16), 75
 * instructions (19), and 4 KB of shared memory for each warp that goes through the keys (32 clocks if it has
 * one group of queries, 16 each if it has two: hence FORWARD_GROUPS). So memory decides, and what counts is
 * that three blocks always have loads under way.
 */
#include "ops/cuda/cuda_attention_pass.cuh"

static const float LOWEST = -1e30f; /* below any score */

/* The online softmax of one group of 16 rows: s becomes 2^(s factor - top). Returns by how much what was
 * summed with the old maximum shrinks. */
template <int COLUMNS>
static __device__ __forceinline__ float2 softmax_step(float (*s)[4], float *top, float *sum, float factor)
{
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = s[0][2 * half];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            largest = fmaxf(largest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
        float now = fmaxf(top[half], largest * factor), total = 0.0f;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                s[j][e] = fast_exp2(fmaf(s[j][e], factor, -now));
                total += s[j][e];
            }
        shrink[half] = fast_exp2(top[half] - now);
        sum[half] = sum[half] * shrink[half] + total;
        top[half] = now;
    }
    return make_float2(shrink[0], shrink[1]);
}

/* What a warp knows of its queries: the SIDE of cuda_attention_pass.cuh. Index 0, 1 of top and sum: rows l /
 * 4 and l / 4 + 8. */
template <typename T, int DIM> struct ForwardQueries {
    static const int KEPT = AttentionSizes<DIM>::FORWARD_GROUPS;
    uint32_t query[KEPT][DIM / 16][4];
    float out[KEPT][DIM / 8][4];
    float top[KEPT][2]; /* largest score so far, times scale_log2 */
    float sum[KEPT][2]; /* this lane's share of the sum of 2^(score scale_log2 - top) */

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

    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &,
                                         AttentionShared<T>, const AttentionTask &task)
    {
        int stride = 3 * args.width;
#pragma unroll
        for (int m = 0; m < KEPT; m++) {
            const T *from =
                (const T *)args.qkv + (int64_t)(task.row + m * task.apart) * stride + task.head * DIM;
            rows_load<T, DIM>(query[m], from, stride, task.left - m * task.apart);
            rows_to_left<DIM / 16>(query[m]);
            rows_zero<DIM>(out[m]);
            top[m][0] = top[m][1] = LOWEST;
            sum[m][0] = sum[m][1] = 0.0f;
        }
    }

    /* 8 COLUMNS keys, of which `valid` exist; keys and values are the lane's places. */
    template <int COUNT, int COLUMNS>
    __device__ __forceinline__ void step(const T *keys, const T *values, int valid, float factor)
    {
        float s[COUNT][COLUMNS][4] = {};
        uint32_t b[4], p[COUNT][COLUMNS / 2][4];
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++)
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) {
                ldmatrix_x4(b, tile_at<T, DIM>(keys, pair, k));
#pragma unroll
                for (int m = 0; m < COUNT; m++)
                    mma_pair<T>(s[m] + 2 * pair, query[m][k], b);
            }
#pragma unroll
        for (int m = 0; m < COUNT; m++) {
            if (valid < 8 * COLUMNS) mask_columns<COLUMNS>(s[m], valid, LOWEST);
            float2 shrink = softmax_step<COLUMNS>(s[m], top[m], sum[m], factor);
#pragma unroll
            for (int pair = 0; pair < COLUMNS / 2; pair++)
                left_operand<T>(p[m][pair], s[m] + 2 * pair);
            if (!__any_sync(ALL_LANES, shrink.x < 1.0f || shrink.y < 1.0f))
                continue; /* as a rule, after a few */
#pragma unroll
            for (int j = 0; j < DIM / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    out[m][j][e] *= e < 2 ? shrink.x : shrink.y;
        }
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++)
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) {
                ldmatrix_x4_trans(b, tile_at<T, DIM>(values, pair, k));
#pragma unroll
                for (int m = 0; m < COUNT; m++)
                    mma_pair<T>(out[m] + 2 * k, p[m][pair], b);
            }
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        const int STEP = 2 * GROUP;
        const T *keys = shared.template along<DIM>(row);
        const T *values = shared.template across<DIM>(row + AttentionSizes<DIM>::ROWS);
#pragma unroll 1
        for (; tokens > GROUP; tokens -= STEP, keys += STEP * DIM, values += STEP * DIM)
            step<COUNT, STEP / 8>(keys, values, tokens, args.scale_log2);
        if (tokens > 0) step<COUNT, GROUP / 8>(keys, values, tokens, args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        int lane = threadIdx.x % WARP;
#pragma unroll
        for (int m = 0; m < KEPT; m++) {
            int left = task.left - m * task.apart, row = task.row + m * task.apart;
            if (left <= 0) break;
            float factor[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int r = lane / 4 + half * 8;
                float total = sum[m][half];
                total += __shfl_xor_sync(ALL_LANES, total, 1);
                total += __shfl_xor_sync(ALL_LANES, total, 2);
                factor[half] = 1.0f / total;
                if (lane % 4 == 0 && r < left)
                    args.lse[(int64_t)(row + r) * args.heads + task.head] = top[m][half] * LN_2 + logf(total);
            }
            rows_store<T, DIM>((T *)args.out + (int64_t)row * args.width + task.head * DIM, args.width, left,
                               out[m], factor[0], factor[1]);
        }
    }
};

template <typename T, int DIM>
static __global__ void __launch_bounds__(ATTENTION_THREADS, AttentionSizes<DIM>::FORWARD_BLOCKS)
    attention_forward_kernel(AttentionArgs args, AttentionSplit split)
{
    KERNEL_SHARED(T, tiles);
    __shared__ AttentionWork work;
    __shared__ TilePlaces places;
    tile_places_fill<DIM>(&places);
    attention_work_begin(&work, split, args);
    while (work.piece.tokens > 0) {
        attention_pass<T, DIM, ForwardQueries<T, DIM>>(args, work.piece,
                                                       AttentionShared<T>{tiles, nullptr, &places},
                                                       [&] { attention_work_foresee(&work, split, args); });
        attention_work_advance(&work);
    }
}

template <typename T, int DIM> struct ForwardLauncher {
    static void launch(const OpsCuda *cuda, const AttentionArgs &args)
    {
        typedef AttentionSizes<DIM> Sizes;
        AttentionSplit split =
            attention_work_split(args, Sizes::GROUPS, Sizes::FORWARD_GROUPS * ATTENTION_WARPS, false);
        unsigned grid = attention_work_grid(cuda, args, split, Sizes::FORWARD_BLOCKS,
                                            Sizes::SHARED_BYTES + sizeof(AttentionWork) + sizeof(TilePlaces));
        KERNEL_ALLOW_SHARED((attention_forward_kernel<T, DIM>), Sizes::SHARED_BYTES);
        KERNEL_LAUNCH((attention_forward_kernel<T, DIM>), grid, ATTENTION_THREADS, Sizes::SHARED_BYTES,
                      cuda->stream, args, split);
    }
};

void cuda_attention_forward_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args)
{
    attention_dispatch<ForwardLauncher>(cuda, dtype, args);
}
