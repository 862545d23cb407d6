/* cuda_attention_warpgroup.cuh - products of a warpgroup's rows with the tiles of cuda_attention_tile.cuh.
 *
 * A block of the attention kernels is one warpgroup. It takes 64 rows of one head at a time, 16 for each
 * warp; those are left operands in registers, and what they meet is a right operand in shared memory, which
 * the hardware reads once for all 64 rows where mma.sync reads it for every 16 or 32. A warp whose rows all
 * lie behind the sequence's end issues its part of the products, which are sums of zeros, and nothing else.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_WARPGROUP_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_WARPGROUP_CUH

#include "ops/cuda/cuda_attention_pass.cuh"
#include "ops/cuda/warpgroup_core.cuh"

/* Rows that come by at a time, as columns of one product: what registers have room for beside what is kept.
 * Forward: S; first half of backward: S and dP; second half: S and dP beside K, V, dK and dV. */
template <int DIM> struct WarpgroupSizes {
    static const int FORWARD_STEP = 64;
    static const int QUERIES_STEP = DIM == 32 ? 64 : 32;
    static const int KEYS_STEP = DIM % 64 == 0 ? 16 : 32;
    static const int FORWARD_BLOCKS = DIM <= 96 ? 3 : 2;
    static const int BACKWARD_BLOCKS = DIM <= 64 ? 3 : 2;
    static const int SHARED_BYTES = AttentionSizes<DIM>::SHARED_BYTES + WARPGROUP_ALIGNMENT;
};

/* What all SIDEs of a warpgroup have in common. */
struct WarpgroupSide {
    static const int PARTIES = 1, KEPT = 4;
    bool busy; /* this warp has a row of the sequence */

    static __device__ __forceinline__ void arrived()
    {
        warpgroup_fence_shared();
    }

    /* The calling warp's share of the warpgroup's task. */
    __device__ __forceinline__ AttentionTask share(AttentionTask task)
    {
        int before = threadIdx.x / WARP * GROUP;
        task.row += before;
        task.place += before;
        task.left -= before;
        busy = task.left > 0;
        return task;
    }
};

/* The tiles in dynamic shared memory, where the swizzle's pattern begins. */
template <typename T> static __device__ __forceinline__ T *warpgroup_tiles(T *shared)
{
    return shared + (-(uintptr_t)shared & (WARPGROUP_ALIGNMENT - 1)) / sizeof(T);
}

/* Where row `row` of the first operand's tile lies, for the products below; the second's is OPERAND further.
 */
template <typename T, int DIM>
static __device__ __forceinline__ uint32_t warpgroup_row(const T *tiles, int row)
{
    return warpgroup_place(tiles + row * AttentionSizes<DIM>::SPAN);
}

/* The descriptor of what lies `elements` behind a place. */
template <int DIM> static __device__ __forceinline__ uint64_t warpgroup_tile(uint32_t place, int elements)
{
    const int SPAN = AttentionSizes<DIM>::SPAN;
    return warpgroup_descriptor(place + (uint32_t)elements * 2 / 16, SPAN,
                                AttentionSizes<DIM>::ROWS * SPAN * 2);
}

/* s[64, 8 COLUMNS] = left[64, DIM] . tile[8 COLUMNS, DIM]^T; OPERAND 0 or 1: the first or second tile. */
template <typename T, int DIM, int COLUMNS, int OPERAND>
static __device__ __forceinline__ void warpgroup_scores(float (*s)[4], uint32_t (*left)[4], uint32_t place)
{
    typedef AttentionSizes<DIM> Sizes;
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        int block = k * 16 / Sizes::SPAN * Sizes::ROWS * Sizes::SPAN, column = k * 16 % Sizes::SPAN;
        uint64_t tile = warpgroup_tile<DIM>(place, OPERAND * Sizes::OPERAND + block + column);
        warpgroup_mma<T, 8 * COLUMNS, 0>(s, left[k], tile, k > 0);
    }
}

/* sums[64, DIM] += left[64, 8 COLUMNS] . tile[8 COLUMNS, DIM]. */
template <typename T, int DIM, int COLUMNS, int OPERAND>
static __device__ __forceinline__ void warpgroup_gather(float (*sums)[4], uint32_t (*left)[4], uint32_t place)
{
    typedef AttentionSizes<DIM> Sizes;
#pragma unroll
    for (int pair = 0; pair < COLUMNS / 2; pair++) {
        int rows = pair * GROUP * Sizes::SPAN;
        uint64_t tile = warpgroup_tile<DIM>(place, OPERAND * Sizes::OPERAND + rows);
        warpgroup_mma<T, DIM, 1>(sums, left[pair], tile, true);
    }
}

/* Results of products, 8 COLUMNS columns, as left operand of the next. */
template <typename T, int COLUMNS>
static __device__ __forceinline__ void warpgroup_left(uint32_t (*left)[4], const float (*c)[4])
{
#pragma unroll
    for (int pair = 0; pair < COLUMNS / 2; pair++)
        left_operand<T>(left[pair], c + 2 * pair);
}

/* Calls step<rows / 8>() for all `tokens` rows from `row` of the tiles on: STEP at a time, then what is left
 * over by 32 and 16. */
template <typename T, int DIM, int STEP, typename SIDE>
static __device__ __forceinline__ void warpgroup_go_through(SIDE *side, AttentionShared<T> shared, int row,
                                                            int tokens, float factor)
{
    const int SPAN = AttentionSizes<DIM>::SPAN;
    uint32_t place = warpgroup_row<T, DIM>(shared.tiles, row);
    const float2 *stats = shared.stats + row + threadIdx.x % 4 * 2; /* of this lane's first column */
#pragma unroll 1
    for (; tokens > STEP - GROUP; tokens -= STEP, place += STEP * SPAN * 2 / 16, stats += STEP)
        side->template step<STEP / 8>(place, stats, tokens, factor);
    if constexpr (STEP > 2 * GROUP) {
        const int PART = 2 * GROUP;
        if (tokens > GROUP) {
            side->template step<PART / 8>(place, stats, tokens, factor);
            tokens -= PART, place += PART * SPAN * 2 / 16, stats += PART;
        }
    }
    if constexpr (STEP > GROUP) {
        if (tokens > 0) side->template step<GROUP / 8>(place, stats, tokens, factor);
    }
}

#endif
