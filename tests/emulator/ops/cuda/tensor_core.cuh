/* tensor_core.cuh - warp-wide matrix instructions and asynchronous copies, in place of the header of that
 * name in src.
 *
 * Fragments lie as the PTX ISA says (mma.m16n8k16, ldmatrix): lane l is in group g = l / 4 at place t = l
 * % 4.
 */
#ifndef DINOBATCH_TESTS_EMULATOR_TENSOR_CORE_CUH
#define DINOBATCH_TESTS_EMULATOR_TENSOR_CORE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

/* The compiler's checks are for kernels; this runs for every matrix instruction. */
#define EMULATED_FAST __attribute__((no_sanitize("undefined")))

struct EmulatedMma {
    float *c;
    const uint32_t *a, *b;
};

struct EmulatedLdmatrix {
    uint32_t *r;
    const uint16_t *row;
};

/* Element 0 or 1 of a register. */
template <typename T> EMULATED_FAST float emulated_half_of(uint32_t word, int which)
{
    return (float)emulated_bits<T>((uint16_t)(word >> (16 * which)));
}

/* c += a . b: products of 16-bit numbers are exact in fp32; sums in fp32, k ascending. */
template <typename T> EMULATED_FAST void emulated_mma_perform(void *const operands[32], unsigned)
{
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const EmulatedMma *part = (const EmulatedMma *)operands[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 2; i++) {
            for (int half = 0; half < 2; half++) {
                a[g + 8 * half][2 * t + i] = emulated_half_of<T>(part->a[half], i);
                a[g + 8 * half][2 * t + 8 + i] = emulated_half_of<T>(part->a[2 + half], i);
                b[2 * t + 8 * half + i][g] = emulated_half_of<T>(part->b[half], i);
                c[g + 8 * half][2 * t + i] = part->c[2 * half + i];
            }
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                c[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; lane++) {
        const EmulatedMma *part = (const EmulatedMma *)operands[lane];
        for (int i = 0; i < 4; i++)
            part->c[i] = c[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
}

template <typename T>
void mma_m16n8k16(float c[4], const uint32_t a[4], const uint32_t b[2], T, int line = __builtin_LINE())
{
    static_assert(sizeof(T) == 2, "bf16 or fp16");
    EmulatedMma part = {c, a, b};
    emulator_warp({"mma_m16n8k16", "", line}, 0xffffffffu, &part, emulated_mma_perform<T>);
}

template <bool TRANSPOSED> EMULATED_FAST void emulated_ldmatrix_perform(void *const operands[32], unsigned)
{
    uint16_t matrix[4][8][8];
    for (int lane = 0; lane < 32; lane++) {
        const EmulatedLdmatrix *part = (const EmulatedLdmatrix *)operands[lane];
        memcpy(matrix[lane / 8][lane % 8], part->row, 16);
    }
    for (int lane = 0; lane < 32; lane++) {
        const EmulatedLdmatrix *part = (const EmulatedLdmatrix *)operands[lane];
        int g = lane / 4, t = lane % 4;
        for (int m = 0; m < 4; m++) {
            uint32_t low = TRANSPOSED ? matrix[m][2 * t][g] : matrix[m][g][2 * t];
            uint32_t high = TRANSPOSED ? matrix[m][2 * t + 1][g] : matrix[m][g][2 * t + 1];
            part->r[m] = low | high << 16;
        }
    }
}

static inline void emulated_ldmatrix(const char *what, int line, uint32_t r[4], const void *row,
                                     EmulatorPerform perform)
{
    if ((uintptr_t)row % 16 != 0)
        emulator_fail("%s: a row that is not 16-byte aligned (line %d)", what, line);
    if (!emulator_is_shared(row, 16))
        emulator_fail("%s: a row outside of shared memory (line %d)", what, line);
    EmulatedLdmatrix part = {r, (const uint16_t *)row};
    emulator_warp({what, "", line}, 0xffffffffu, &part, perform);
}

static inline void ldmatrix_x4(uint32_t r[4], const void *row, int line = __builtin_LINE())
{
    emulated_ldmatrix("ldmatrix_x4", line, r, row, emulated_ldmatrix_perform<false>);
}

static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row, int line = __builtin_LINE())
{
    emulated_ldmatrix("ldmatrix_x4_trans", line, r, row, emulated_ldmatrix_perform<true>);
}

static inline void cp_async_16(void *to_shared, const void *from, bool valid)
{
    emulator_copy_start(to_shared, from, valid);
}

static inline void cp_async_commit()
{
    emulator_copy_commit();
}

template <int PENDING> void cp_async_wait()
{
    emulator_copy_wait(PENDING);
}

#endif
