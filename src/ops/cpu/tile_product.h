/* tile_product.h - products of small fp32 tiles that lie in cache, made by the calling thread.
 *
 * For attention, whose tiles are too small for a matrix library's call and packing. Written with the
 * compiler's vector types: AVX-512, AVX2 or anything else from one source. Not for whole layers: gemm.h.
 */
#ifndef DINOBATCH_OPS_CPU_TILE_PRODUCT_H
#define DINOBATCH_OPS_CPU_TILE_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

/* Columns are padded to a multiple of this on every processor, so that layouts do not depend on it. */
enum { TILE_PRODUCT_PAD = 16 };

static inline int64_t tile_product_padded(int64_t n)
{
    return (n + TILE_PRODUCT_PAD - 1) / TILE_PRODUCT_PAD * TILE_PRODUCT_PAD;
}

/* Element (i, k) of the left operand is data[i * row_stride + k * k_stride]: either order of storage. */
typedef struct {
    const float *data;
    int64_t row_stride;
    int64_t k_stride;
} TileProductLeft;

/* c[m, n] (row stride ldc) = a[m, k] . b[k, n] (row stride ldb), or c += where accumulate.
 * n is a multiple of TILE_PRODUCT_PAD: padding columns of b and c exist and are computed. */
void tile_product_run(int64_t m, int64_t n, int64_t k, TileProductLeft a, const float *b, int64_t ldb,
                      bool accumulate, float *c, int64_t ldc);

/* out[columns, ldo] = the transpose of in[rows, ldi]: both are read and written in whole TILE_PRODUCT_PAD
 * squares, so memory up to the next multiple of it in both directions exists in both. */
void tile_product_transpose(float *out, int64_t ldo, const float *in, int64_t ldi, int64_t rows,
                            int64_t columns);

#endif
