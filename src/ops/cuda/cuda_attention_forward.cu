/* cuda_attention_forward.cu - attention_forward on the tensor cores: FlashAttention-2 over a packed batch.
 *
 * Source: Dao, FlashAttention-2, arXiv:2307.08691, algorithm 1 (online softmax, each warp has query rows of
 * its own). Products by mma.sync, so it runs on sm_80 and later; wgmma is in cuda_attention_forward_sm90.cu.
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
#include "ops/cuda/cuda_attention_forward.cuh"

/* The SIDE of cuda_attention_pass.cuh: a warp's queries. */
template <typename T, int DIM>
struct ForwardQueries : ForwardRows<T, DIM, AttentionSizes<DIM>::FORWARD_GROUPS> {
    static const int PARTIES = ATTENTION_WARPS, KEPT = AttentionSizes<DIM>::FORWARD_GROUPS;

    static __device__ __forceinline__ void arrived()
    {
    }

    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &,
                                         AttentionShared<T>, const AttentionTask &task)
    {
        this->take(args, task);
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
                    mma_pair<T>(s[m] + 2 * pair, this->query[m][k], b);
            }
#pragma unroll
        for (int m = 0; m < COUNT; m++)
            this->template weigh<COLUMNS>(m, s[m], p[m], valid, factor);
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++)
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) {
                ldmatrix_x4_trans(b, tile_at<T, DIM>(values, pair, k));
#pragma unroll
                for (int m = 0; m < COUNT; m++)
                    mma_pair<T>(this->out[m] + 2 * k, p[m][pair], b);
            }
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        const int STEP = 2 * GROUP, SPAN = AttentionSizes<DIM>::SPAN;
        const T *keys = shared.template along<DIM>(row);
        const T *values = shared.template across<DIM>(row) + AttentionSizes<DIM>::OPERAND;
#pragma unroll 1
        for (; tokens > GROUP; tokens -= STEP, keys += STEP * SPAN, values += STEP * SPAN)
            step<COUNT, STEP / 8>(keys, values, tokens, args.scale_log2);
        if (tokens > 0) step<COUNT, GROUP / 8>(keys, values, tokens, args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        this->give(args, task);
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
