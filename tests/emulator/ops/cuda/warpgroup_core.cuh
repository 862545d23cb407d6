/* warpgroup_core.cuh - matrix instructions of a warpgroup, in place of the header of that name in src.
 *
 * emulated_warpgroup.cc decodes the descriptors and says what it catches.
 */
#ifndef DINOBATCH_TESTS_EMULATOR_WARPGROUP_CORE_CUH
#define DINOBATCH_TESTS_EMULATOR_WARPGROUP_CORE_CUH

#include "emulated_warpgroup.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { WARPGROUP_ALIGNMENT = 1024 };

static inline uint32_t warpgroup_place(const void *start)
{
    return (emulated_warpgroup_address(start) & 0x3ffff) >> 4;
}

static inline uint64_t warpgroup_descriptor(uint32_t place, int span, int block_bytes)
{
    uint32_t low = place | (uint32_t)(block_bytes >> 4) << 16;
    uint32_t high = (uint32_t)(8 * span * 2) >> 4 | (span == 64 ? 1u : 2u) << 30;
    return (uint64_t)high << 32 | low;
}

static inline void warpgroup_fence_shared()
{
    emulated_warpgroup_fence_shared();
}

static inline void warpgroup_fence()
{
    emulated_warpgroup_fence();
}

static inline void warpgroup_commit(int line = __builtin_LINE())
{
    emulated_warpgroup_commit(line);
}

static inline void warpgroup_wait(int line = __builtin_LINE())
{
    emulated_warpgroup_wait(line);
}

template <int COLUMNS> void warpgroup_hold(float (*)[4])
{
}

template <int PIECES> void warpgroup_hold(uint32_t (*)[4])
{
}

template <typename T> float emulated_warpgroup_number(uint16_t bits)
{
    return (float)emulated_bits<T>(bits);
}

template <typename T, int N, int ACROSS>
void warpgroup_mma(float (*c)[4], const uint32_t a[4], uint64_t b, bool accumulate,
                   int line = __builtin_LINE())
{
    static_assert(sizeof(T) == 2 && N % 8 == 0 && N <= EMULATED_WARPGROUP_COLUMNS, "a shape of wgmma");
    emulated_warpgroup_issue({c, a, b, N, ACROSS != 0, accumulate, emulated_warpgroup_number<T>, line});
}

#endif
