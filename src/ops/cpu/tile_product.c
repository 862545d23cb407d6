/* tile_product.c - a register-blocked product: a block of rows by a few vectors of columns is summed over all
 * k before it goes back to memory (Goto and van de Geijn, "Anatomy of high-performance matrix
 * multiplication", without the packing: the tiles are small). */
#include "ops/cpu/tile_product.h"

#include "ops/cpu/simd.h"

/* Sums that fit the registers beside one row of b: 24 of 32, or 12 of 16. */
enum { ROWS = 6, VECTORS = SIMD_LANES == 16 ? 4 : 2 };

static inline __attribute__((always_inline)) void block(int rows, int vectors, int64_t k, TileProductLeft a,
                                                        const float *b, int64_t ldb, bool accumulate,
                                                        float *c, int64_t ldc)
{
    Simd sum[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = accumulate ? simd_load(c + r * ldc + v * SIMD_LANES) : (Simd){0};
    const float *left = a.data;
    for (int64_t i = 0; i < k; i++) {
        Simd right[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            right[v] = simd_load(b + v * SIMD_LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            float factor = left[r * a.row_stride];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] += right[v] * factor;
        }
        left += a.k_stride;
        b += ldb;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            simd_store(c + r * ldc + v * SIMD_LANES, sum[r][v]);
}

/* All rows of `vectors` vectors of columns. */
static inline __attribute__((always_inline)) void column_block(int vectors, int64_t m, int64_t k,
                                                               TileProductLeft a, const float *b, int64_t ldb,
                                                               bool accumulate, float *c, int64_t ldc)
{
    for (; m >= ROWS; m -= ROWS) {
        block(ROWS, vectors, k, a, b, ldb, accumulate, c, ldc);
        a.data += ROWS * a.row_stride;
        c += ROWS * ldc;
    }
    switch (m) {
    case 5:
        block(5, vectors, k, a, b, ldb, accumulate, c, ldc);
        break;
    case 4:
        block(4, vectors, k, a, b, ldb, accumulate, c, ldc);
        break;
    case 3:
        block(3, vectors, k, a, b, ldb, accumulate, c, ldc);
        break;
    case 2:
        block(2, vectors, k, a, b, ldb, accumulate, c, ldc);
        break;
    case 1:
        block(1, vectors, k, a, b, ldb, accumulate, c, ldc);
        break;
    default:
        break;
    }
}

void tile_product_run(int64_t m, int64_t n, int64_t k, TileProductLeft a, const float *b, int64_t ldb,
                      bool accumulate, float *c, int64_t ldc)
{
    int64_t vectors = n / SIMD_LANES;
    for (; vectors >= VECTORS; vectors -= VECTORS) {
        column_block(VECTORS, m, k, a, b, ldb, accumulate, c, ldc);
        b += VECTORS * SIMD_LANES;
        c += VECTORS * SIMD_LANES;
    }
    if (vectors == 3) column_block(VECTORS == 4 ? 3 : 1, m, k, a, b, ldb, accumulate, c, ldc);
    if (vectors == 2) column_block(2, m, k, a, b, ldb, accumulate, c, ldc);
    if (vectors == 1) column_block(1, m, k, a, b, ldb, accumulate, c, ldc);
}

/* One step of the transpose: squares of `size` lanes off the diagonal change places between two vectors. */
#if defined __AVX512F__
#define LANE_INDICES(F, size)                                                                           \
    {                                                                                                   \
        F(0, size), F(1, size), F(2, size), F(3, size), F(4, size), F(5, size), F(6, size), F(7, size), \
            F(8, size), F(9, size), F(10, size), F(11, size), F(12, size), F(13, size), F(14, size),    \
            F(15, size)                                                                                 \
    }
#else
#define LANE_INDICES(F, size)                                                                          \
    {                                                                                                  \
        F(0, size), F(1, size), F(2, size), F(3, size), F(4, size), F(5, size), F(6, size), F(7, size) \
    }
#endif
#define LOW_LANE(lane, size)  ((lane) & (size) ? (lane) - (size) + SIMD_LANES : (lane))
#define HIGH_LANE(lane, size) ((lane) & (size) ? (lane) + SIMD_LANES : (lane) + (size))
#define EXCHANGE(size)                                                                                \
    _Pragma("GCC unroll 16") for (int i = 0; i < SIMD_LANES; i++)                                     \
    {                                                                                                 \
        if (i & (size)) continue;                                                                     \
        Simd first = rows[i], second = rows[i + (size)];                                              \
        rows[i] = __builtin_shuffle(first, second, (SimdMask)LANE_INDICES(LOW_LANE, size));           \
        rows[i + (size)] = __builtin_shuffle(first, second, (SimdMask)LANE_INDICES(HIGH_LANE, size)); \
    }

static inline void transpose_square(float *out, int64_t ldo, const float *in, int64_t ldi)
{
    Simd rows[SIMD_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < SIMD_LANES; i++)
        rows[i] = simd_load(in + i * ldi);
    EXCHANGE(1)
    EXCHANGE(2)
    EXCHANGE(4)
#ifdef __AVX512F__
    EXCHANGE(8)
#endif
#pragma GCC unroll 16
    for (int i = 0; i < SIMD_LANES; i++)
        simd_store(out + i * ldo, rows[i]);
}

void tile_product_transpose(float *out, int64_t ldo, const float *in, int64_t ldi, int64_t rows,
                            int64_t columns)
{
    for (int64_t i = 0; i < rows; i += SIMD_LANES)
        for (int64_t j = 0; j < columns; j += SIMD_LANES)
            transpose_square(out + j * ldo + i, ldo, in + i * ldi + j, ldi);
}
