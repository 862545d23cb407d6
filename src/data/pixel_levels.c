/* pixel_levels.c - see pixel_levels.h. */
#include "data/pixel_levels.h"

#include "ops/ops.h"

#include <math.h>

PixelNorm pixel_levels_imagenet(void)
{
    return (PixelNorm){.mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}};
}

bool pixel_levels_usable(const double mean[3], const double std[3])
{
    for (int c = 0; c < 3; c++)
        if (!isfinite(mean[c]) || !isfinite(std[c]) || !((float)std[c] > 0.0f)) return false;
    return true;
}

PixelNorm pixel_levels_norm(const double mean[3], const double std[3])
{
    PixelNorm norm;
    for (int c = 0; c < 3; c++) {
        norm.mean[c] = (float)mean[c];
        norm.std[c] = (float)std[c];
    }
    return norm;
}

bool pixel_levels_equal(const PixelNorm *a, const PixelNorm *b)
{
    for (int c = 0; c < 3; c++)
        if (a->mean[c] != b->mean[c] || a->std[c] != b->std[c]) return false;
    return true;
}

void pixel_levels_fill(float *levels, const PixelNorm *norm)
{
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < PATCHIFY_LEVELS; i++)
            levels[c * PATCHIFY_LEVELS + i] = ((float)i / 255.0f - norm->mean[c]) / norm->std[c];
}

Tensor pixel_levels_create(Device *device, const PixelNorm *norm)
{
    float levels[3 * PATCHIFY_LEVELS];
    pixel_levels_fill(levels, norm);
    Tensor t = tensor_2d(device_alloc(device, sizeof levels), DTYPE_F32, 3, PATCHIFY_LEVELS);
    device_upload(device, t.data, levels, sizeof levels);
    return t;
}
