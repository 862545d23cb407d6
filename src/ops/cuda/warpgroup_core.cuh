/* warpgroup_core.cuh - the matrix instructions of a warpgroup (sm_90a): 64 rows at a time, the right operand
 * in shared memory, results when they are waited for.
 *
 * Source: the PTX ISA's chapter on wgmma. A warpgroup is four warps whose first has a number divisible by
 * four; all of its threads run every call below together, with the same descriptor. Warp w has rows 16 w to
 * 16 w + 15, and each of its 16 x 16 pieces of the left operand and 16 x 8 pieces of the result lies in its
 * lanes as with mma.m16n8k16 (tensor_core.cuh).
 *
 * A tile of the right operand is rows of 64 or 32 16-bit elements without padding (128 or 64 bytes) whose
 * 16-byte chunks change places as the hardware's swizzle says: bits 4 - 6 of an address ^= bits 7 - 9, in
 * rows of 64 bytes bits 4 - 5 ^= bits 7 - 8. The tile begins at a multiple of 1024 bytes and steps begin at
 * multiples of eight rows, so the pattern begins where the address says and the descriptor's base offset is
 * 0. The same tile is read in two ways: each row is a column of the product and its elements are summed over
 * ("K-major"), or the rows are summed over ("MN-major", the instruction's transposed form).
 *
 * The order that makes a product right:
 *     every thread that wrote shared memory, by cp.async or itself: warpgroup_fence_shared(), then a barrier;
 *     registers of the left operand and the result written; warpgroup_fence(); products; warpgroup_commit();
 *     warpgroup_wait(result): only now may the result, the left operand or the tile be touched again.
 *
 * The tests compile the same kernels for the host with another file of this name (tests/emulator).
 */
#ifndef DINOBATCH_OPS_CUDA_WARPGROUP_CORE_CUH
#define DINOBATCH_OPS_CUDA_WARPGROUP_CORE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

enum { WARPGROUP_ALIGNMENT = 1024 };

/* An address in shared memory as descriptors have it: in units of 16 bytes, below 2^14. */
static __device__ __forceinline__ uint32_t warpgroup_place(const void *start)
{
    return ((uint32_t)__cvta_generic_to_shared(start) & 0x3ffff) >> 4;
}

/* A matrix in rows of `span` elements that starts at `place`: from its first block of columns to the next
 * (MN-major; not read otherwise), from eight rows to the next eight, and the swizzle, 1 of 128 bytes, 2
 * of 64.
 */
static __device__ __forceinline__ uint64_t warpgroup_descriptor(uint32_t place, int span, int block_bytes)
{
    uint32_t low = place | (uint32_t)(block_bytes >> 4) << 16;
    uint32_t high = (uint32_t)(8 * span * 2) >> 4 | (span == 64 ? 1u : 2u) << 30;
    return (uint64_t)high << 32 | low;
}

/* What this thread wrote to shared memory is there for matrix instructions of those behind the next barrier.
 */
static __device__ __forceinline__ void warpgroup_fence_shared()
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/* Registers that were read or written so far may be used by products. */
static __device__ __forceinline__ void warpgroup_fence()
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

/* Ends a group of products. */
static __device__ __forceinline__ void warpgroup_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* The compiler may not move what it does to these registers across this place. */
template <int COLUMNS> static __device__ __forceinline__ void warpgroup_hold(float (*c)[4])
{
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
        asm volatile("" : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])::"memory");
}

/* The same of left operands. */
template <int PIECES> static __device__ __forceinline__ void warpgroup_hold(uint32_t (*a)[4])
{
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

/* Until all groups of products are done. */
static __device__ __forceinline__ void warpgroup_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
}

/* c[64, N] = a[64, 16] . b[16, N], or += where `accumulate`; c as N / 8 pieces. ACROSS 0: columns of b are
 * rows of the tile (K-major); 1: rows of b are (MN-major). */
template <typename T, int N, int ACROSS> struct WarpgroupMma;

#define WARPGROUP_C2(c, j)                                                                            \
    "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3]), "+f"(c[j + 1][0]), "+f"(c[j + 1][1]), \
        "+f"(c[j + 1][2]), "+f"(c[j + 1][3])
#define WARPGROUP_C4(c, j)  WARPGROUP_C2(c, j), WARPGROUP_C2(c, j + 2)
#define WARPGROUP_C8(c, j)  WARPGROUP_C4(c, j), WARPGROUP_C4(c, j + 4)
#define WARPGROUP_C12(c, j) WARPGROUP_C8(c, j), WARPGROUP_C4(c, j + 8)
#define WARPGROUP_C16(c, j) WARPGROUP_C8(c, j), WARPGROUP_C8(c, j + 8)

#define WARPGROUP_R8  "%0, %1, %2, %3, %4, %5, %6, %7"
#define WARPGROUP_R16 WARPGROUP_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define WARPGROUP_R32 \
    WARPGROUP_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WARPGROUP_R48 \
    WARPGROUP_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WARPGROUP_R64 \
    WARPGROUP_R48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/* One shape: its name, registers of the result and their operands, and the places of the operands behind. */
#define WARPGROUP_SHAPE(T, shape, N, columns, results, a, descriptor, scale, across)                    \
    template <int ACROSS> struct WarpgroupMma<T, N, ACROSS> {                                           \
        static __device__ __forceinline__ void run(float (*c)[4], const uint32_t x[4], uint64_t y,      \
                                                   bool accumulate)                                     \
        {                                                                                               \
            asm volatile(                                                                               \
                "{\n.reg .pred p;\nsetp.ne.b32 p, " scale ", 0;\nwgmma.mma_async.sync.aligned." shape   \
                " {" results "}, {" a "}, " descriptor ", p, 1, 1, " across ";\n}\n"                    \
                : columns(c, 0)                                                                         \
                : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(y), "r"((int)accumulate), "n"(ACROSS) \
                : "memory");                                                                            \
        }                                                                                               \
    }
#define WARPGROUP_SHAPES(T, types)                                                                           \
    WARPGROUP_SHAPE(T, "m64n16k16." types, 16, WARPGROUP_C2, WARPGROUP_R8, "%8, %9, %10, %11", "%12", "%13", \
                    "%14");                                                                                  \
    WARPGROUP_SHAPE(T, "m64n32k16." types, 32, WARPGROUP_C4, WARPGROUP_R16, "%16, %17, %18, %19", "%20",     \
                    "%21", "%22");                                                                           \
    WARPGROUP_SHAPE(T, "m64n64k16." types, 64, WARPGROUP_C8, WARPGROUP_R32, "%32, %33, %34, %35", "%36",     \
                    "%37", "%38");                                                                           \
    WARPGROUP_SHAPE(T, "m64n96k16." types, 96, WARPGROUP_C12, WARPGROUP_R48, "%48, %49, %50, %51", "%52",    \
                    "%53", "%54");                                                                           \
    WARPGROUP_SHAPE(T, "m64n128k16." types, 128, WARPGROUP_C16, WARPGROUP_R64, "%64, %65, %66, %67", "%68",  \
                    "%69", "%70")
WARPGROUP_SHAPES(__nv_bfloat16, "f32.bf16.bf16");
WARPGROUP_SHAPES(__half, "f32.f16.f16");

template <typename T, int N, int ACROSS>
static __device__ __forceinline__ void warpgroup_mma(float (*c)[4], const uint32_t a[4], uint64_t b,
                                                     bool accumulate)
{
    WarpgroupMma<T, N, ACROSS>::run(c, a, b, accumulate);
}

#endif
