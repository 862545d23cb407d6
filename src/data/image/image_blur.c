/* image_blur.c - see the header. */
#include "data/image/image_blur.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>

enum { TAPS = 2 * IMAGE_BLUR_RADIUS + 1, RADIUS = IMAGE_BLUR_RADIUS };

/* The middle weight first, then one per distance. */
static void blur_weights(double sigma, float weight[RADIUS + 1])
{
    float sum = 0.0f;
    float width = (float)sigma;
    for (int d = 0; d <= RADIUS; d++) {
        float x = (float)d / width;
        weight[d] = (float)exp(-0.5 * (double)(x * x));
        sum += d == 0 ? weight[d] : 2.0f * weight[d];
    }
    for (int d = 0; d <= RADIUS; d++)
        weight[d] /= sum;
}

/* Position `i` of an endlessly reflected line of n pixels whose ends are not repeated. */
static int64_t reflect(int64_t i, int64_t n)
{
    if (n == 1) return 0;
    int64_t period = 2 * (n - 1);
    i = (i % period + period) % period;
    return i < n ? i : period - i;
}

/* One row: to[width] float from pixels[width], by way of line[width + 8]. */
static void blur_row(const uint8_t *restrict pixels, int64_t width, const float weight[RADIUS + 1],
                     float *restrict line, float *restrict to)
{
    for (int64_t x = 0; x < width; x++)
        line[RADIUS + x] = (float)pixels[x];
    for (int64_t d = 1; d <= RADIUS; d++) {
        line[RADIUS - d] = (float)pixels[reflect(-d, width)];
        line[RADIUS + width - 1 + d] = (float)pixels[reflect(width - 1 + d, width)];
    }
    float w0 = weight[0], w1 = weight[1], w2 = weight[2], w3 = weight[3], w4 = weight[4];
    const float *restrict at = line + RADIUS;
    for (int64_t x = 0; x < width; x++)
        to[x] = w4 * (at[x - 4] + at[x + 4]) + w3 * (at[x - 3] + at[x + 3]) + w2 * (at[x - 2] + at[x + 2]) +
                w1 * (at[x - 1] + at[x + 1]) + w0 * at[x];
}

/* One row of the result from the nine rows around it. */
static void blur_column(const float *const rows[TAPS], int64_t width, const float weight[RADIUS + 1],
                        uint8_t *restrict to)
{
    const float *restrict a = rows[0], *restrict b = rows[1], *restrict c = rows[2], *restrict d = rows[3];
    const float *restrict e = rows[4], *restrict f = rows[5], *restrict g = rows[6], *restrict h = rows[7];
    const float *restrict i = rows[8];
    float w0 = weight[0], w1 = weight[1], w2 = weight[2], w3 = weight[3], w4 = weight[4];
    for (int64_t x = 0; x < width; x++) {
        float sum =
            w4 * (a[x] + i[x]) + w3 * (b[x] + h[x]) + w2 * (c[x] + g[x]) + w1 * (d[x] + f[x]) + w0 * e[x];
        to[x] = (uint8_t)(int)rintf(sum);
    }
}

void image_blur(uint8_t *planes, int64_t height, int64_t width, double sigma, ImageBlurScratch *scratch)
{
    CHECK(height >= 1 && width >= 1 && sigma > 0.0);
    size_t bytes = (size_t)(width * (height + 1) + 2 * RADIUS) * sizeof(float);
    if (bytes > scratch->rows_bytes) {
        memory_free(scratch->rows);
        scratch->rows = memory_alloc(bytes);
        scratch->rows_bytes = bytes;
    }
    float weight[RADIUS + 1];
    blur_weights(sigma, weight);
    float *line = scratch->rows + width * height;
    for (int c = 0; c < 3; c++) {
        uint8_t *plane = planes + c * height * width;
        for (int64_t y = 0; y < height; y++)
            blur_row(plane + y * width, width, weight, line, scratch->rows + y * width);
        for (int64_t y = 0; y < height; y++) {
            const float *rows[TAPS];
            for (int k = 0; k < TAPS; k++)
                rows[k] = scratch->rows + reflect(y + k - RADIUS, height) * width;
            blur_column(rows, width, weight, plane + y * width);
        }
    }
}

void image_blur_scratch_fini(ImageBlurScratch *scratch)
{
    memory_free(scratch->rows);
    *scratch = (ImageBlurScratch){0};
}
