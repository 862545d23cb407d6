/* patch_grid.h - patch tokens averaged over a coarser grid, place by place. */
#ifndef DINOBATCH_FEATURES_PATCH_GRID_H
#define DINOBATCH_FEATURES_PATCH_GRID_H

#include <stdint.h>

/* out[n, side * side, D] = means of tokens[n, rows * columns, D], both grids row by row. Cell i of a side is
 * patches [floor(i edge / side), ceil((i + 1) edge / side)), which overlap where side does not divide the
 * edge: PyTorch's adaptive_avg_pool2d. 1 <= side <= rows, columns. */
void patch_grid_pool(float *out, const float *tokens, int64_t n, int64_t rows, int64_t columns, int64_t side,
                     int64_t D);

#endif
