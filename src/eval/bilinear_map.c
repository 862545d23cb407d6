/* bilinear_map.c - see bilinear_map.h. */
#include "eval/bilinear_map.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

void bilinear_axis_init(BilinearAxis *axis, int64_t inputs, int64_t outputs, double scale, double offset)
{
    CHECK(inputs >= 1 && outputs >= 1);
    if (outputs > axis->room) {
        bilinear_axis_fini(axis);
        axis->low = memory_alloc_array((size_t)outputs, sizeof *axis->low);
        axis->share = memory_alloc_array((size_t)outputs, sizeof *axis->share);
        axis->room = outputs;
    }
    axis->inputs = inputs;
    axis->outputs = outputs;
    for (int64_t i = 0; i < outputs; i++) {
        double at = ((double)i + 0.5) * scale + offset - 0.5;
        at = fmin(fmax(at, 0.0), (double)(inputs - 1));
        axis->low[i] = (int32_t)at;
        axis->share[i] = (float)(at - (double)axis->low[i]);
    }
}

void bilinear_axis_fini(BilinearAxis *axis)
{
    memory_free(axis->low);
    memory_free(axis->share);
    *axis = (BilinearAxis){0};
}

void bilinear_map_row(const BilinearMap *map, const float *in, int64_t row, float *out, float *scratch)
{
    int64_t C = map->channels, n = map->x.inputs * C;
    const float *above = in + map->y.low[row] * n;
    float down = map->y.share[row];
    const float *below = down > 0.0f ? above + n : above;
    for (int64_t j = 0; j < n; j++)
        scratch[j] = above[j] + down * (below[j] - above[j]);
    for (int64_t i = 0; i < map->x.outputs; i++) {
        float right = map->x.share[i];
        const float *a = scratch + map->x.low[i] * C, *b = right > 0.0f ? a + C : a;
        for (int64_t c = 0; c < C; c++)
            out[i * C + c] = a[c] + right * (b[c] - a[c]);
    }
}

void bilinear_map_row_backward(const BilinearMap *map, float *din, int64_t row, const float *dout,
                               float *scratch)
{
    int64_t C = map->channels, n = map->x.inputs * C;
    memset(scratch, 0, (size_t)n * sizeof *scratch);
    for (int64_t i = 0; i < map->x.outputs; i++) {
        float right = map->x.share[i];
        float *a = scratch + map->x.low[i] * C, *b = right > 0.0f ? a + C : a;
        for (int64_t c = 0; c < C; c++)
            a[c] += (1.0f - right) * dout[i * C + c];
        for (int64_t c = 0; c < C; c++)
            b[c] += right * dout[i * C + c];
    }
    float down = map->y.share[row];
    float *above = din + map->y.low[row] * n;
    for (int64_t j = 0; j < n; j++)
        above[j] += (1.0f - down) * scratch[j];
    if (down > 0.0f)
        for (int64_t j = 0; j < n; j++)
            above[n + j] += down * scratch[j];
}
