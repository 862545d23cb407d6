/* pca_picture.c - see pca_picture.h. */
#include "report/pca_picture.h"

#include "base/check.h"
#include "base/memory.h"
#include "report/principal_components.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 256, COLORS = 3, GAP = 8, CLOSE = 4 }; /* the latter two in pixels */

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

static bool at_border(const PatchPicture *picture, int64_t at)
{
    int64_t y = at / picture->grid_width, x = at % picture->grid_width;
    return y == 0 || x == 0 || y == picture->grid_height - 1 || x == picture->grid_width - 1;
}

/* Whether the patches above the threshold have the smaller share at the borders of the pictures. */
static bool front_is_above(const PatchPictures *pictures, const float *values, double threshold)
{
    int64_t border[2] = {0}, all[2] = {0};
    for (int64_t i = 0; i < pictures->count; i++) {
        const PatchPicture *picture = &pictures->pictures[i];
        for (int64_t at = 0; at < picture->grid_height * picture->grid_width; at++) {
            int side = (double)values[picture->first + at] > threshold;
            all[side]++;
            border[side] += at_border(picture, at);
        }
    }
    return border[1] * all[0] <= border[0] * all[1]; /* compared without division */
}

static double deviation(const float *values, int64_t n)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    return sqrt(fmax(squares / (double)n - sum / (double)n * (sum / (double)n), 0.0));
}

static void find_foreground(PcaColors *colors, const PatchPictures *pictures, const PcaOptions *options)
{
    int64_t n = pictures->patches, kept = 0;
    colors->share = 1.0;
    memset(colors->foreground, 1, (size_t)n);
    if (options->foreground == PCA_FOREGROUND_ALL) return;
    PrincipalComponents first;
    principal_components_fit(&first, pictures->tokens, NULL, n, pictures->d, 1);
    float *values = memory_alloc_array((size_t)n, sizeof *values);
    principal_components_project(&first, pictures->tokens, n, values);
    principal_components_fini(&first);

    double spread = deviation(values, n);
    double threshold =
        options->has_threshold ? options->threshold * spread : pca_picture_threshold(values, n);
    bool is_auto = options->foreground == PCA_FOREGROUND_AUTO;
    colors->threshold = spread > 0.0 ? threshold / spread : 0.0;
    colors->above =
        is_auto ? front_is_above(pictures, values, threshold) : options->foreground == PCA_FOREGROUND_ABOVE;
    for (int64_t i = 0; i < n; i++)
        kept += colors->foreground[i] = ((double)values[i] > threshold) == colors->above;
    if (kept == 0 || (is_auto && (double)kept < FOREGROUND_LEAST * (double)n))
        memset(colors->foreground, 1, (size_t)n);
    else
        colors->share = (double)kept / (double)n;
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

static double total_variance(const PatchPictures *pictures, const PrincipalComponents *pca,
                             const uint8_t *foreground)
{
    double sum = 0.0;
    int64_t count = 0, d = pictures->d;
    for (int64_t i = 0; i < pictures->patches; i++) {
        if (!foreground[i]) continue;
        count++;
        for (int64_t k = 0; k < d; k++) {
            double difference = (double)pictures->tokens[i * d + k] - pca->mean[k];
            sum += difference * difference;
        }
    }
    return sum / (double)count;
}

void pca_picture_colors(PcaColors *colors, const PatchPictures *pictures, const PcaOptions *options)
{
    int64_t n = pictures->patches, d = pictures->d;
    CHECK(n > 0 && d >= COLORS);
    *colors =
        (PcaColors){.foreground = memory_alloc((size_t)n), .colors = memory_alloc_array((size_t)n, COLORS)};
    find_foreground(colors, pictures, options);

    PrincipalComponents pca;
    principal_components_fit(&pca, pictures->tokens, colors->foreground, n, d, COLORS);
    float *values = memory_alloc_array((size_t)n, COLORS * sizeof *values);
    principal_components_project(&pca, pictures->tokens, n, values);
    double total = total_variance(pictures, &pca, colors->foreground);
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

/* --- drawing --- */

/* Sizes of the row of pictures [first, end). */
static void row_size(const PatchPictures *pictures, int64_t first, int64_t end, int64_t *width,
                     int64_t *height)
{
    *width = GAP;
    *height = 0;
    for (int64_t i = first; i < end; i++) {
        int64_t each = patch_pictures_height(pictures, i);
        *width += patch_pictures_width(pictures, i) + GAP;
        *height = each > *height ? each : *height;
    }
}

void pca_picture_draw(Picture *picture, const PatchPictures *pictures, const PcaColors *colors,
                      int64_t columns)
{
    int64_t widest = 0, top = GAP, width, height;
    for (int64_t first = 0; first < pictures->count; first += columns) {
        int64_t end = first + columns < pictures->count ? first + columns : pictures->count;
        row_size(pictures, first, end, &width, &height);
        widest = width > widest ? width : widest;
        top += 2 * height + CLOSE + 2 * GAP; /* a picture and its map stand close, pairs apart */
    }
    picture_init(picture, widest, top - GAP);
    top = GAP;
    for (int64_t first = 0; first < pictures->count; first += columns) {
        int64_t end = first + columns < pictures->count ? first + columns : pictures->count, left = GAP;
        row_size(pictures, first, end, &width, &height);
        for (int64_t i = first; i < end; i++) {
            const PatchPicture *one = &pictures->pictures[i];
            int64_t each = patch_pictures_height(pictures, i), side = patch_pictures_width(pictures, i);
            picture_paste(picture, left, top + height - each, one->rgb, side, each, 1);
            picture_paste(picture, left, top + height + CLOSE, colors->colors + one->first * COLORS,
                          one->grid_width, one->grid_height, pictures->cell);
            left += side + GAP;
        }
        top += 2 * height + CLOSE + 2 * GAP;
    }
}
