/* patch_grid.c - see patch_grid.h. */
#include "features/patch_grid.h"

#include "base/check.h"

/* Patches [first, end) of a side. */
typedef struct {
    int64_t first, end;
} Span;

static Span span_of(int64_t cell, int64_t edge, int64_t side)
{
    return (Span){cell * edge / side, ((cell + 1) * edge + side - 1) / side};
}

/* Of a grid of `across` columns. */
static void pool_cell(float *out, const float *tokens, Span rows, Span columns, int64_t across, int64_t D)
{
    double count = (double)((rows.end - rows.first) * (columns.end - columns.first));
    for (int64_t j = 0; j < D; j++) {
        double sum = 0.0;
        for (int64_t y = rows.first; y < rows.end; y++)
            for (int64_t x = columns.first; x < columns.end; x++)
                sum += (double)tokens[(y * across + x) * D + j];
        out[j] = (float)(sum / count);
    }
}

void patch_grid_pool(float *out, const float *tokens, int64_t n, int64_t rows, int64_t columns, int64_t side,
                     int64_t D)
{
    CHECK(side >= 1 && side <= rows && side <= columns);
    for (int64_t i = 0; i < n; i++)
        for (int64_t y = 0; y < side; y++)
            for (int64_t x = 0; x < side; x++)
                pool_cell(out + ((i * side + y) * side + x) * D, tokens + i * rows * columns * D,
                          span_of(y, rows, side), span_of(x, columns, side), columns, D);
}
