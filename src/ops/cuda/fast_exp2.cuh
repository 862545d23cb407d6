/* fast_exp2.cuh - 2^x by the special function unit, to about 2^-22 of the result.
 *
 * exp2f guards results below the normal numbers with three more instructions; in a softmax they are zeros as
 * good as any. The tests compile the same kernels for the host with another file of this name
 * (tests/emulator).
 */
#ifndef DINOBATCH_OPS_CUDA_FAST_EXP2_CUH
#define DINOBATCH_OPS_CUDA_FAST_EXP2_CUH

__device__ __forceinline__ float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

#endif
