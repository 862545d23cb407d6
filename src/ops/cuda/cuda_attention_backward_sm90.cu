/* cuda_attention_backward_sm90.cu - attention_backward by the matrix instructions of Hopper (wgmma),
 * deterministic, without atomics.
 *
 * Source and plan: as cuda_attention_backward.cu. A piece of work is gone through twice: 64 queries stay with
 * the warpgroup and keys come by (S, dP, dQ), then 64 keys stay and queries come by (S, dP, dV, dK). Seven
 * products where five would do, but every sum lies in the registers of one warp, which adds to it in the
 * order in which rows come by: the same bits each time, and P and dS never go through shared memory, since
 * what stays is always the left operand and what comes by is read both ways from one tile.
 *
 * Costs, by count and not by measurement, at ViT-L/14, 64 sequences of 257 and 256 of 50 tokens, 16 heads of
 * 64, bf16: 480 MB in and out, 160 us at the 3 TB/s of an H100. Seven products, kept rows rounded up to 64
 * and those that come by to 16, are 95 GFLOP (50 are the useful five), 96 us at 990 TFLOP/s. 64 x 64 take 896
 * clocks of a multiprocessor's tensor cores, 56 KB of shared memory (448; mma.sync: 1792) and 8192
 * exponentials (512). So memory decides as long as blocks overlap: three to a multiprocessor for head
 * dimensions up to 64, two above. That many leave 168 registers: K, V, dK and dV of 64 keys take 96 of them,
 * hence steps of 16 queries there, whose small products may run below the full rate; steps of 32 spill, and
 * with two blocks (198 registers) fewer loads are under way. Which is better only a GPU can say.
 */
#include "ops/cuda/cuda_attention_backward.cuh"
#include "ops/cuda/cuda_attention_warpgroup.cuh"

/* First half: 64 queries stay, keys and values come by. */
template <typename T, int DIM> struct WarpgroupQueries : BackwardQueryRows<T, DIM>, WarpgroupSide {
    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &piece,
                                         AttentionShared<T> shared, const AttentionTask &task)
    {
        this->take(args, piece, shared, share(task));
    }

    /* 8 COLUMNS keys, of which `valid` exist. */
    template <int COLUMNS>
    __device__ __forceinline__ void step(uint32_t place, const float2 *, int valid, float factor)
    {
        float s[COLUMNS][4], dp[COLUMNS][4];
        uint32_t ds[COLUMNS / 2][4] = {};
        warpgroup_hold<DIM / 16>(this->query);
        warpgroup_hold<DIM / 16>(this->dout);
        warpgroup_fence();
        warpgroup_scores<T, DIM, COLUMNS, 0>(s, this->query, place);
        warpgroup_scores<T, DIM, COLUMNS, 1>(dp, this->dout, place);
        warpgroup_commit();
        warpgroup_wait();
        warpgroup_hold<COLUMNS>(s);
        warpgroup_hold<COLUMNS>(dp);
        if (busy) {
            this->template gradients<COLUMNS>(s, dp, valid, factor);
            warpgroup_left<T, COLUMNS>(ds, dp);
        }
        warpgroup_hold<DIM / 8>(this->dquery);
        warpgroup_hold<COLUMNS / 2>(ds);
        warpgroup_fence();
        warpgroup_gather<T, DIM, COLUMNS, 0>(this->dquery, ds, place);
        warpgroup_commit();
        warpgroup_wait();
        warpgroup_hold<DIM / 8>(this->dquery);
        warpgroup_hold<COLUMNS / 2>(ds);
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        warpgroup_go_through<T, DIM, WarpgroupSizes<DIM>::QUERIES_STEP>(this, shared, row, tokens,
                                                                        args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        this->give(args, share(task));
    }
};

/* Second half: 64 keys and their values stay, queries and output gradients come by. */
template <typename T, int DIM> struct WarpgroupKeys : BackwardKeyRows<T, DIM>, WarpgroupSide {
    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &,
                                         AttentionShared<T>, const AttentionTask &task)
    {
        this->take(args, share(task));
    }

    /* 8 COLUMNS queries. */
    template <int COLUMNS>
    __device__ __forceinline__ void step(uint32_t place, const float2 *stats, int, float factor)
    {
        float s[COLUMNS][4], dp[COLUMNS][4];
        uint32_t p[COLUMNS / 2][4] = {}, ds[COLUMNS / 2][4] = {};
        warpgroup_hold<DIM / 16>(this->key);
        warpgroup_hold<DIM / 16>(this->value);
        warpgroup_fence();
        warpgroup_scores<T, DIM, COLUMNS, 0>(s, this->key, place);
        warpgroup_scores<T, DIM, COLUMNS, 1>(dp, this->value, place);
        warpgroup_commit();
        warpgroup_wait();
        warpgroup_hold<COLUMNS>(s);
        warpgroup_hold<COLUMNS>(dp);
        if (busy) {
            this->template gradients<COLUMNS>(s, dp, stats, factor);
            warpgroup_left<T, COLUMNS>(p, s);
            warpgroup_left<T, COLUMNS>(ds, dp);
        }
        warpgroup_hold<DIM / 8>(this->dvalue);
        warpgroup_hold<DIM / 8>(this->dkey);
        warpgroup_hold<COLUMNS / 2>(p);
        warpgroup_hold<COLUMNS / 2>(ds);
        warpgroup_fence();
        warpgroup_gather<T, DIM, COLUMNS, 1>(this->dvalue, p, place);
        warpgroup_gather<T, DIM, COLUMNS, 0>(this->dkey, ds, place);
        warpgroup_commit();
        warpgroup_wait();
        warpgroup_hold<DIM / 8>(this->dvalue);
        warpgroup_hold<DIM / 8>(this->dkey);
        warpgroup_hold<COLUMNS / 2>(p);
        warpgroup_hold<COLUMNS / 2>(ds);
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        warpgroup_go_through<T, DIM, WarpgroupSizes<DIM>::KEYS_STEP>(this, shared, row, tokens,
                                                                     args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        this->give(args, share(task));
    }
};

/* As attention_backward_kernel: all of whole sequences and the first half of long ones; or, with
 * split.long_only, the second half of long ones. */
template <typename T, int DIM>
static __global__ void __launch_bounds__(ATTENTION_THREADS, WarpgroupSizes<DIM>::BACKWARD_BLOCKS)
    attention_backward_sm90_kernel(AttentionArgs args, AttentionSplit split)
{
    KERNEL_SHARED(T, memory);
    __shared__ AttentionWork work;
    __shared__ __align__(16) float2 stats[AttentionSizes<DIM>::ROWS];
    AttentionShared<T> shared = {warpgroup_tiles(memory), stats, nullptr};
    attention_work_begin(&work, split, args);
    while (work.piece.tokens > 0) {
        if (!split.long_only) {
            attention_pass<T, DIM, WarpgroupQueries<T, DIM>>(
                args, work.piece, shared, [&] { attention_work_foresee(&work, split, args); });
            __syncthreads(); /* the queries overwrite the keys, and each warp reads all statistics */
        }
        if (work.piece.whole || split.long_only)
            attention_pass<T, DIM, WarpgroupKeys<T, DIM>>(args, work.piece, shared, [&] {
                if (split.long_only) attention_work_foresee(&work, split, args);
            });
        attention_work_advance(&work);
    }
}

template <typename T, int DIM> struct BackwardWarpgroupLauncher {
    static void launch(const OpsCuda *cuda, const AttentionArgs &args)
    {
        typedef WarpgroupSizes<DIM> Sizes;
        const int ROWS = AttentionSizes<DIM>::ROWS;
        AttentionSplit split =
            attention_work_split(args, AttentionSizes<DIM>::GROUPS, WarpgroupSide::KEPT, false);
        size_t all_shared = Sizes::SHARED_BYTES + ROWS * sizeof(float2) + sizeof(AttentionWork);
        unsigned grid = attention_work_grid(cuda, args, split, Sizes::BACKWARD_BLOCKS, all_shared);
        KERNEL_ALLOW_SHARED((attention_backward_sm90_kernel<T, DIM>), Sizes::SHARED_BYTES);
        KERNEL_LAUNCH((attention_backward_sm90_kernel<T, DIM>), grid, ATTENTION_THREADS, Sizes::SHARED_BYTES,
                      cuda->stream, args, split);
        if (args.tokens <= ROWS || cuda->limits.max_seqlen <= ROWS) return; /* none is long */
        split.long_only = true;
        KERNEL_LAUNCH((attention_backward_sm90_kernel<T, DIM>), grid, ATTENTION_THREADS, Sizes::SHARED_BYTES,
                      cuda->stream, args, split);
    }
};

void cuda_attention_backward_sm90_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args)
{
    attention_dispatch<BackwardWarpgroupLauncher>(cuda, dtype, args);
}
