/* pca_picture.c - see pca_picture.h. */
#include "report/pca_picture.h"

#include "base/check.h"
#include "base/memory.h"
#include "report/principal_components.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 256, COLORS = 3, CELL_MIN = 224, GAP = 8 };

static const double CLIPPED = 0.01;          /* share of patches beyond each end of the colour scale */
static const double FOREGROUND_LEAST = 0.02; /* below this share the threshold has found nothing */

double pca_picture_threshold(const float *values, int64_t n)
{
    double low = (double)values[0], high = low;
    for (int64_t i = 1; i < n; i++) {
        low = fmin(low, (double)values[i]);
        high = fmax(high, (double)values[i]);
    }
    if (!(high > low)) return low;
    double counts[BINS] = {0}, sum = 0.0, below = 0.0, sum_below = 0.0, best = -1.0;
    for (int64_t i = 0; i < n; i++) {
        int bin = (int)(((double)values[i] - low) / (high - low) * BINS);
        counts[bin < BINS ? bin : BINS - 1] += 1.0;
    }
    for (int b = 0; b < BINS; b++)
        sum += counts[b] * b;
    int split = 0, last_split = 0; /* every split inside a gap is as good: its middle is taken */
    for (int b = 0; b + 1 < BINS; b++) {
        below += counts[b];
        sum_below += counts[b] * b;
        double above = (double)n - below;
        if (below == 0.0 || above == 0.0) continue;
        double difference = sum_below / below - (sum - sum_below) / above;
        double between = below * above * difference * difference;
        if (between < best) continue;
        if (between > best) split = b;
        best = between;
        last_split = b;
    }
    return low + (high - low) * (0.5 * (split + last_split) + 1.0) / BINS;
}

/* --- foreground --- */

static bool at_border(const PcaPictureInput *input, int64_t patch)
{
    int64_t at = patch % (input->grid_height * input->grid_width);
    int64_t y = at / input->grid_width, x = at % input->grid_width;
    return y == 0 || x == 0 || y == input->grid_height - 1 || x == input->grid_width - 1;
}

static void find_foreground(const PcaPictureInput *input, int64_t n, uint8_t *foreground)
{
    memset(foreground, 1, (size_t)n);
    if (input->keep_background) return;
    PrincipalComponents first;
    principal_components_fit(&first, input->tokens, NULL, n, input->d, 1);
    float *values = memory_alloc_array((size_t)n, sizeof *values);
    principal_components_project(&first, input->tokens, n, values);
    principal_components_fini(&first);

    double threshold = pca_picture_threshold(values, n);
    int64_t border[2] = {0}, all[2] = {0};
    for (int64_t i = 0; i < n; i++) {
        int side = (double)values[i] > threshold;
        all[side]++;
        border[side] += at_border(input, i);
    }
    /* share of each side's patches that lie at a border, compared without division */
    int front = border[1] * all[0] <= border[0] * all[1];
    if ((double)all[front] >= FOREGROUND_LEAST * (double)n)
        for (int64_t i = 0; i < n; i++)
            foreground[i] = ((double)values[i] > threshold) == front;
    memory_free(values);
}

/* --- colours --- */

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The range of one component over the foreground, without the outermost values. */
static void color_range(const float *values, const uint8_t *foreground, int64_t n, int component,
                        float range[2])
{
    float *sorted = memory_alloc_array((size_t)n, sizeof *sorted);
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (foreground[i]) sorted[count++] = values[i * COLORS + component];
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    int64_t cut = (int64_t)(CLIPPED * (double)(count - 1));
    range[0] = sorted[cut];
    range[1] = sorted[count - 1 - cut];
    memory_free(sorted);
}

static double total_variance(const PcaPictureInput *input, const PrincipalComponents *pca,
                             const uint8_t *foreground, int64_t n)
{
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!foreground[i]) continue;
        count++;
        for (int64_t k = 0; k < input->d; k++) {
            double difference = (double)input->tokens[i * input->d + k] - pca->mean[k];
            sum += difference * difference;
        }
    }
    return sum / (double)count;
}

void pca_picture_colors(PcaColors *colors, const PcaPictureInput *input)
{
    int64_t n = input->images * input->grid_height * input->grid_width;
    CHECK(n > 0 && input->d >= COLORS);
    *colors =
        (PcaColors){.foreground = memory_alloc((size_t)n), .colors = memory_alloc_array((size_t)n, COLORS)};
    find_foreground(input, n, colors->foreground);

    PrincipalComponents pca;
    principal_components_fit(&pca, input->tokens, colors->foreground, n, input->d, COLORS);
    float *values = memory_alloc_array((size_t)n, COLORS * sizeof *values);
    principal_components_project(&pca, input->tokens, n, values);
    double total = total_variance(input, &pca, colors->foreground, n);
    for (int c = 0; c < COLORS; c++) {
        float range[2];
        color_range(values, colors->foreground, n, c, range);
        colors->explained[c] = total > 0.0 ? pca.variance[c] / total : 0.0;
        for (int64_t i = 0; i < n; i++) {
            if (!colors->foreground[i]) continue;
            float width = range[1] - range[0];
            float share = width > 0.0f ? (values[i * COLORS + c] - range[0]) / width : 0.5f;
            share = fminf(fmaxf(share, 0.0f), 1.0f);
            colors->colors[i * COLORS + c] = (uint8_t)lrintf(255.0f * share);
        }
    }
    memory_free(values);
    principal_components_fini(&pca);
}

void pca_picture_colors_fini(PcaColors *colors)
{
    memory_free(colors->foreground);
    memory_free(colors->colors);
    *colors = (PcaColors){0};
}

void pca_picture_draw(Picture *picture, const PcaPictureInput *input, const PcaColors *colors,
                      int64_t columns)
{
    int64_t width = input->grid_width * input->patch_size, height = input->grid_height * input->patch_size;
    int64_t scale = (CELL_MIN + width - 1) / width;
    int64_t cell_width = width * scale, cell_height = height * scale;
    if (columns > input->images) columns = input->images;
    int64_t rows = (input->images + columns - 1) / columns;
    /* an image and its map stand close, pairs apart */
    int64_t pair = 2 * cell_height + GAP / 2 + 2 * GAP;
    picture_init(picture, columns * (cell_width + GAP) + GAP, rows * pair);
    for (int64_t i = 0; i < input->images; i++) {
        int64_t left = GAP + i % columns * (cell_width + GAP), top = GAP + i / columns * pair;
        int64_t patches = input->grid_height * input->grid_width;
        picture_paste(picture, left, top, input->rgb + i * height * width * 3, width, height, scale);
        picture_paste(picture, left, top + cell_height + GAP / 2, colors->colors + i * patches * COLORS,
                      input->grid_width, input->grid_height, scale * input->patch_size);
    }
}
