/* pixel_levels.h - what the grey levels of 8-bit pictures are to a network.
 *
 * Source: torchvision's ToTensor and Normalize, the last steps of dinov2/data/transforms.py. A byte has only
 * 256 results, so crops travel as bytes, and patchify_forward (ops/ops.h) looks the results up where it cuts
 * patches.
 */
#ifndef DINOBATCH_DATA_PIXEL_LEVELS_H
#define DINOBATCH_DATA_PIXEL_LEVELS_H

#include "device/device.h"
#include "tensor/tensor.h"

#include <stdbool.h>

/* Of the channels of RGB in [0, 1]. */
typedef struct {
    float mean[3], std[3];
} PixelNorm;

/* ImageNet's, which the reference trains with. */
PixelNorm pixel_levels_imagenet(void);

/* Whether a file's numbers can be one: finite, and what is divided by above 0. */
bool pixel_levels_usable(const double mean[3], const double std[3]);

/* The same numbers in the precision that pictures are normalised in. */
PixelNorm pixel_levels_norm(const double mean[3], const double std[3]);

bool pixel_levels_equal(const PixelNorm *a, const PixelNorm *b);

/* levels[3, 256] = (level / 255 - mean) / std, each operation rounded to float32 as torchvision's are. */
void pixel_levels_fill(float *levels, const PixelNorm *norm);

/* The same in memory of the device, which the caller frees by device_free. */
Tensor pixel_levels_create(Device *device, const PixelNorm *norm);

#endif
