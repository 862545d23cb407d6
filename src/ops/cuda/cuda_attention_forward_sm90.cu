/* cuda_attention_forward_sm90.cu - attention_forward by the matrix instructions of Hopper (wgmma).
 *
 * Source: as cuda_attention_forward.cu, whose work map, tiles, online softmax and log-sum-exp these kernels
 * share: the same blocks bring the same pieces of work to shared memory. What differs is who computes: the
 * block is one warpgroup, which takes 64 queries of one head at a time from memory to registers and goes
 * through all keys in steps of 64, the last ones of 32 and 16 as the length wants. P goes from the first
 * product's result to the second's left operand without leaving its registers, so shared memory is read by
 * products alone.
 *
 * Rows come by cp.async, 16 bytes at a time: a row of one head is 128 bytes and the next one lies 3 D
 * elements further, in sequences that begin anywhere. cp.async gathers and swizzles at once; a bulk copy of a
 * row cannot swizzle, and tensor maps, which can, are made by the driver's interface, which this program does
 * not link.
 *
 * Costs, by count and not by measurement, at ViT-L/14, 64 sequences of 257 and 256 of 50 tokens, 16 heads of
 * 64, bf16: qkv is read and out written once, 240 MB, 80 us at the 3 TB/s of an H100. Products with queries
 * rounded up to 64 and keys to 16 are 27.1 GFLOP (19.9 are useful), 27 us at 990 TFLOP/s; exponentials,
 * rounded to 16 since a warp without rows makes none, 25 us. 64 queries x 64 keys take 256 clocks of a
 * multiprocessor's tensor cores, 16 KB of shared memory (128 clocks) and 4096 exponentials (256): three
 * blocks to a multiprocessor (143 registers a thread, 71 KB) let one compute while another is at its softmax
 * and a third waits for rows. Memory decides, even for the shortest: a head of 17 tokens takes one tile of 64
 * x 32, 112 clocks for 14 % of useful products, but its 8.7 KB take 670 clocks to come and go.
 */
#include "ops/cuda/cuda_attention_forward.cuh"
#include "ops/cuda/cuda_attention_warpgroup.cuh"

/* The SIDE of cuda_attention_pass.cuh: 64 queries. */
template <typename T, int DIM> struct ForwardWarpgroup : ForwardRows<T, DIM, 1>, WarpgroupSide {
    __device__ __forceinline__ void load(const AttentionArgs &args, const volatile AttentionPiece &,
                                         AttentionShared<T>, const AttentionTask &task)
    {
        this->take(args, share(task));
    }

    /* 8 COLUMNS keys, of which `valid` exist. */
    template <int COLUMNS>
    __device__ __forceinline__ void step(uint32_t place, const float2 *, int valid, float factor)
    {
        float s[COLUMNS][4];
        uint32_t p[COLUMNS / 2][4] = {};
        warpgroup_hold<DIM / 16>(this->query[0]);
        warpgroup_fence();
        warpgroup_scores<T, DIM, COLUMNS, 0>(s, this->query[0], place);
        warpgroup_commit();
        warpgroup_wait();
        warpgroup_hold<COLUMNS>(s);
        if (busy) this->template weigh<COLUMNS>(0, s, p, valid, factor);
        warpgroup_hold<DIM / 8>(this->out[0]);
        warpgroup_hold<COLUMNS / 2>(p);
        warpgroup_fence();
        warpgroup_gather<T, DIM, COLUMNS, 1>(this->out[0], p, place);
        warpgroup_commit();
        warpgroup_wait();
        warpgroup_hold<DIM / 8>(this->out[0]);
        warpgroup_hold<COLUMNS / 2>(p);
    }

    template <int COUNT>
    __device__ __forceinline__ void meet(const AttentionArgs &args, AttentionShared<T> shared, int row,
                                         int tokens)
    {
        warpgroup_go_through<T, DIM, WarpgroupSizes<DIM>::FORWARD_STEP>(this, shared, row, tokens,
                                                                        args.scale_log2);
    }

    __device__ __forceinline__ void store(const AttentionArgs &args, const AttentionTask &task)
    {
        this->give(args, share(task));
    }
};

template <typename T, int DIM>
static __global__ void __launch_bounds__(ATTENTION_THREADS, WarpgroupSizes<DIM>::FORWARD_BLOCKS)
    attention_forward_sm90_kernel(AttentionArgs args, AttentionSplit split)
{
    KERNEL_SHARED(T, memory);
    __shared__ AttentionWork work;
    AttentionShared<T> shared = {warpgroup_tiles(memory), nullptr, nullptr};
    attention_work_begin(&work, split, args);
    while (work.piece.tokens > 0) {
        attention_pass<T, DIM, ForwardWarpgroup<T, DIM>>(args, work.piece, shared,
                                                         [&] { attention_work_foresee(&work, split, args); });
        attention_work_advance(&work);
    }
}

template <typename T, int DIM> struct ForwardWarpgroupLauncher {
    static void launch(const OpsCuda *cuda, const AttentionArgs &args)
    {
        typedef WarpgroupSizes<DIM> Sizes;
        AttentionSplit split =
            attention_work_split(args, AttentionSizes<DIM>::GROUPS, WarpgroupSide::KEPT, false);
        unsigned grid = attention_work_grid(cuda, args, split, Sizes::FORWARD_BLOCKS,
                                            Sizes::SHARED_BYTES + sizeof(AttentionWork));
        KERNEL_ALLOW_SHARED((attention_forward_sm90_kernel<T, DIM>), Sizes::SHARED_BYTES);
        KERNEL_LAUNCH((attention_forward_sm90_kernel<T, DIM>), grid, ATTENTION_THREADS, Sizes::SHARED_BYTES,
                      cuda->stream, args, split);
    }
};

void cuda_attention_forward_sm90_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args)
{
    attention_dispatch<ForwardWarpgroupLauncher>(cuda, dtype, args);
}
