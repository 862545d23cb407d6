/* bilinear_map.h - scores on a grid of patches, read between its places, and the transpose of that.
 *
 * Source: PyTorch's F.interpolate(mode="bilinear", align_corners=False), which the reference's heads use: the
 * value of a cell lies in its centre, and beyond the outermost centres stays what it is there. Here outputs
 * may lie anywhere on the grid, so that what was padded is left out and a mirrored picture read backwards
 * without a second map. Row by row: no map of the size of a picture is ever held.
 */
#ifndef DINOBATCH_EVAL_BILINEAR_MAP_H
#define DINOBATCH_EVAL_BILINEAR_MAP_H

#include <stdint.h>

/* One direction: output i is (1 - share[i]) * input low[i] + share[i] * input low[i] + 1. */
typedef struct {
    int64_t inputs, outputs;
    int32_t *low; /* [outputs] */
    float *share; /* [outputs] 0 where low is the last input */
    int64_t room; /* outputs that there is memory for */
} BilinearAxis;

/* Outputs i lie at (i + 0.5) * scale + offset in units of inputs, whose centres are at 0.5, 1.5, ...
 * `axis` is zero-initialised, or an earlier one; bilinear_axis_fini. */
void bilinear_axis_init(BilinearAxis *axis, int64_t inputs, int64_t outputs, double scale, double offset);
void bilinear_axis_fini(BilinearAxis *axis);

typedef struct {
    BilinearAxis y, x;
    int64_t channels;
} BilinearMap;

/* out[x.outputs, channels] = row `row` of the outputs of in[y.inputs, x.inputs, channels]; scratch
 * [x.inputs, channels]. */
void bilinear_map_row(const BilinearMap *map, const float *in, int64_t row, float *out, float *scratch);

/* din += what dout[x.outputs, channels], the gradient of that row, makes; scratch as above. */
void bilinear_map_row_backward(const BilinearMap *map, float *din, int64_t row, const float *dout,
                               float *scratch);

#endif
