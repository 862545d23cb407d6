/* patch_matches.c - see patch_matches.h. */
#include "report/patch_matches.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

enum { GAP = 8, BETWEEN = 24 }; /* pixels; the latter between the pictures of a pair */

static const double APART = 2.5; /* patches between drawn matches */

static int64_t patches_of(const PatchPictures *pictures, int64_t i)
{
    return pictures->pictures[i].grid_height * pictures->pictures[i].grid_width;
}

/* out[n, d] = tokens of unit length. */
static void unit_rows(float *out, const float *tokens, int64_t n, int64_t d)
{
    for (int64_t i = 0; i < n; i++) {
        double length = 0.0;
        for (int64_t k = 0; k < d; k++)
            length += (double)tokens[i * d + k] * (double)tokens[i * d + k];
        length = fmax(sqrt(length), 1e-12);
        for (int64_t k = 0; k < d; k++)
            out[i * d + k] = (float)((double)tokens[i * d + k] / length);
    }
}

/* One side of a search: rows of unit length and which of them take part. */
typedef struct {
    const float *rows;         /* [n, d] */
    const uint8_t *foreground; /* [n] or NULL */
    int64_t n;
} Side;

/* nearest[from->n] = the row of `to`, or -1, and its similarity. */
static void search(int64_t *nearest, float *similarity, const Side *from, const Side *to, int64_t d)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < from->n; i++) {
        nearest[i] = -1;
        similarity[i] = -INFINITY;
        if (from->foreground && !from->foreground[i]) continue;
        for (int64_t j = 0; j < to->n; j++) {
            if (to->foreground && !to->foreground[j]) continue;
            float product = 0.0f;
#pragma omp simd reduction(+ : product)
            for (int64_t k = 0; k < d; k++)
                product += from->rows[i * d + k] * to->rows[j * d + k];
            if (product <= similarity[i]) continue;
            similarity[i] = product;
            nearest[i] = j;
        }
    }
}

static int more_similar_first(const void *left, const void *right)
{
    const PatchMatch *a = left, *b = right;
    if (a->similarity != b->similarity) return a->similarity > b->similarity ? -1 : 1;
    return a->from < b->from ? -1 : a->from > b->from;
}

int64_t patch_matches_find(PatchMatch *matches, const PatchPictures *pictures, int64_t a, int64_t b,
                           const uint8_t *foreground)
{
    int64_t d = pictures->d, n[2] = {patches_of(pictures, a), patches_of(pictures, b)};
    int64_t first[2] = {pictures->pictures[a].first, pictures->pictures[b].first};
    Side side[2];
    int64_t *nearest[2];
    float *rows[2], *similarity[2];
    for (int s = 0; s < 2; s++) {
        rows[s] = memory_alloc_array((size_t)n[s], (size_t)d * sizeof(float));
        nearest[s] = memory_alloc_array((size_t)n[s], sizeof(int64_t));
        similarity[s] = memory_alloc_array((size_t)n[s], sizeof(float));
        unit_rows(rows[s], pictures->tokens + first[s] * d, n[s], d);
        side[s] = (Side){rows[s], foreground ? foreground + first[s] : NULL, n[s]};
    }
    search(nearest[0], similarity[0], &side[0], &side[1], d);
    search(nearest[1], similarity[1], &side[1], &side[0], d);
    int64_t count = 0;
    for (int64_t i = 0; i < n[0]; i++) {
        int64_t j = nearest[0][i];
        if (j >= 0 && nearest[1][j] == i) matches[count++] = (PatchMatch){i, j, similarity[0][i]};
    }
    qsort(matches, (size_t)count, sizeof *matches, more_similar_first);
    for (int s = 0; s < 2; s++) {
        memory_free(rows[s]);
        memory_free(nearest[s]);
        memory_free(similarity[s]);
    }
    return count;
}

static double distance(const PatchPicture *picture, int64_t left, int64_t right)
{
    int64_t w = picture->grid_width, rows = left / w - right / w, columns = left % w - right % w;
    return hypot((double)rows, (double)columns);
}

int64_t patch_matches_thin(PatchMatch *matches, int64_t n, const PatchPictures *pictures, int64_t a,
                           int64_t b, double apart, int64_t most)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n && kept < most; i++) {
        int64_t k = 0;
        while (k < kept && distance(&pictures->pictures[a], matches[i].from, matches[k].from) >= apart &&
               distance(&pictures->pictures[b], matches[i].to, matches[k].to) >= apart)
            k++;
        if (k == kept) matches[kept++] = matches[i];
    }
    return kept;
}

/* --- drawing --- */

/* The middle of a patch of a picture whose corner is at (left, top). */
static void middle(double out[2], const PatchPictures *pictures, int64_t i, int64_t patch, int64_t left,
                   int64_t top)
{
    int64_t w = pictures->pictures[i].grid_width, row = patch / w, column = patch % w;
    out[0] = (double)left + ((double)column + 0.5) * (double)pictures->cell;
    out[1] = (double)top + ((double)row + 0.5) * (double)pictures->cell;
}

/* Pictures a and a + 1, whose corners are at (left[0], top) and (left[1], top). */
static int64_t draw_lines(PictureOverlay *overlay, const PatchPictures *pictures, int64_t a,
                          const uint8_t *foreground, int64_t most, const int64_t left[2], int64_t top)
{
    static const char *const colors[] = {"#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231",
                                         "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#9a6324"};
    PatchMatch *matches = memory_alloc_array((size_t)patches_of(pictures, a), sizeof *matches);
    int64_t found = patch_matches_find(matches, pictures, a, a + 1, foreground);
    found = patch_matches_thin(matches, found, pictures, a, a + 1, APART, most);
    for (int64_t i = 0; i < found; i++) {
        double from[2], to[2];
        middle(from, pictures, a, matches[i].from, left[0], top);
        middle(to, pictures, a + 1, matches[i].to, left[1], top);
        picture_overlay_line(overlay, from, to, 2.0, colors[(size_t)i % (sizeof colors / sizeof *colors)]);
    }
    memory_free(matches);
    return found;
}

int64_t patch_matches_draw(Picture *picture, const PatchPictures *pictures, const uint8_t *foreground,
                           int64_t most, PictureOverlay *overlay)
{
    int64_t widest = 0, height = GAP, top = GAP, pairs = pictures->count / 2, lines = 0;
    for (int64_t a = 0; a < 2 * pairs; a += 2) {
        int64_t width = patch_pictures_width(pictures, a) + patch_pictures_width(pictures, a + 1);
        int64_t heights[] = {patch_pictures_height(pictures, a), patch_pictures_height(pictures, a + 1)};
        widest = width > widest ? width : widest;
        height += (heights[0] > heights[1] ? heights[0] : heights[1]) + GAP;
    }
    picture_init(picture, widest + BETWEEN + 2 * GAP, height);
    for (int64_t a = 0; a < 2 * pairs; a += 2) {
        int64_t left[] = {GAP, GAP + patch_pictures_width(pictures, a) + BETWEEN}, tallest = 0;
        for (int64_t s = 0; s < 2; s++) {
            int64_t each = patch_pictures_height(pictures, a + s);
            picture_paste(picture, left[s], top, pictures->pictures[a + s].rgb,
                          patch_pictures_width(pictures, a + s), each, 1);
            tallest = each > tallest ? each : tallest;
        }
        lines += draw_lines(overlay, pictures, a, foreground, most, left, top);
        top += tallest + GAP;
    }
    return lines;
}
