/* attention_picture.c - see attention_picture.h. */
#include "report/attention_picture.h"

#include "base/memory.h"
#include "features/class_attention.h"

#include <math.h>
#include <string.h>

enum { GAP = 8, CAPTION = 24, LETTERS = 14, DIM = 4 }; /* pixels; dim: the divisor of brightness */

/* Ten colours of viridis (S. van der Walt, N. Smith; CC0), between which is interpolated. */
static const uint8_t MAP[][3] = {{68, 1, 84},    {72, 40, 120},  {62, 74, 137},  {49, 104, 142},
                                 {38, 130, 142}, {31, 158, 137}, {53, 183, 121}, {110, 206, 88},
                                 {181, 222, 43}, {253, 231, 37}};
enum { STOPS = sizeof MAP / sizeof *MAP };

void attention_picture_compute(float *out, const PatchPictures *pictures, const FeatureBackbone *backbone,
                               const Ops *ops, int64_t block)
{
    const VitConfig *config = &backbone->vit->config;
    int64_t p = pictures->patch_size, others = 1 + config->num_register_tokens;
    for (int64_t i = 0; i < pictures->count; i++) {
        const PatchPicture *one = &pictures->pictures[i];
        int64_t patches = one->grid_height * one->grid_width, tokens = others + patches;
        float *rows = memory_alloc_array((size_t)config->num_heads, (size_t)tokens * sizeof *rows);
        class_attention_compute(backbone, ops, one->input, one->grid_height * p, one->grid_width * p, block,
                                rows);
        for (int64_t h = 0; h < config->num_heads; h++)
            memcpy(out + h * pictures->patches + one->first, rows + h * tokens + others,
                   (size_t)patches * sizeof *out);
        memory_free(rows);
    }
}

static void color_of(uint8_t rgb[3], double share)
{
    double place = share * (STOPS - 1);
    int stop = (int)place < STOPS - 2 ? (int)place : STOPS - 2;
    double rest = place - stop;
    for (int c = 0; c < 3; c++)
        rgb[c] = (uint8_t)lrint((1.0 - rest) * MAP[stop][c] + rest * MAP[stop + 1][c]);
}

/* rgb[n, 3] of weights[n]. */
static void color_map(uint8_t *rgb, const float *weights, int64_t n)
{
    float least = weights[0], most = weights[0];
    for (int64_t i = 1; i < n; i++) {
        least = fminf(least, weights[i]);
        most = fmaxf(most, weights[i]);
    }
    for (int64_t i = 0; i < n; i++)
        color_of(rgb + 3 * i, most > least ? (double)(weights[i] - least) / (double)(most - least) : 0.0);
}

/* Where a picture is drawn, and which. */
typedef struct {
    Picture *sheet;
    const PatchPictures *pictures;
    int64_t i, left, top;
} Cell;

static void draw_map(const Cell *cell, const float *weights)
{
    const PatchPicture *one = &cell->pictures->pictures[cell->i];
    int64_t patches = one->grid_height * one->grid_width;
    uint8_t *rgb = memory_alloc_array((size_t)patches, 3);
    color_map(rgb, weights, patches);
    picture_paste(cell->sheet, cell->left, cell->top, rgb, one->grid_width, one->grid_height,
                  cell->pictures->cell);
    memory_free(rgb);
}

static void draw_kept(const Cell *cell, const float *weights, double mass)
{
    const PatchPicture *one = &cell->pictures->pictures[cell->i];
    int64_t patches = one->grid_height * one->grid_width, edge = cell->pictures->cell;
    int64_t width = patch_pictures_width(cell->pictures, cell->i);
    uint8_t *kept = memory_alloc((size_t)patches);
    uint8_t *rgb = memory_alloc_array((size_t)patches, (size_t)(3 * edge * edge));
    class_attention_keep(kept, weights, patches, mass);
    for (int64_t at = 0; at < patches * edge * edge; at++) {
        int64_t patch = at / width / edge * one->grid_width + at % width / edge;
        for (int c = 0; c < 3; c++)
            rgb[3 * at + c] = kept[patch] ? one->rgb[3 * at + c] : one->rgb[3 * at + c] / DIM;
    }
    picture_paste(cell->sheet, cell->left, cell->top, rgb, width, one->grid_height * edge, 1);
    memory_free(rgb);
    memory_free(kept);
}

/* The picture, and column by column its maps; the first is of the mean of the heads. */
static void draw_row(Cell cell, const AttentionPictureInput *input, int64_t pitch)
{
    const PatchPicture *one = &cell.pictures->pictures[cell.i];
    int64_t patches = one->grid_height * one->grid_width, all = cell.pictures->patches;
    picture_paste(cell.sheet, cell.left, cell.top, one->rgb, patch_pictures_width(cell.pictures, cell.i),
                  patch_pictures_height(cell.pictures, cell.i), 1);
    float *mean = memory_alloc_array((size_t)patches, sizeof *mean);
    for (int64_t h = 0; h < input->heads; h++)
        for (int64_t j = 0; j < patches; j++)
            mean[j] += input->weights[h * all + one->first + j] / (float)input->heads;
    for (int64_t h = -1; h < input->heads; h++) {
        const float *weights = h < 0 ? mean : input->weights + h * all + one->first;
        cell.left += pitch;
        if (input->mass > 0.0)
            draw_kept(&cell, weights, input->mass);
        else
            draw_map(&cell, weights);
    }
    memory_free(mean);
}

static void draw_captions(PictureOverlay *overlay, int64_t heads, int64_t width, int64_t pitch)
{
    for (int64_t column = 0; column < heads + 2; column++) {
        char text[32];
        snprintf(text, sizeof text,
                 column == 0   ? "picture"
                 : column == 1 ? "mean of heads"
                               : "head %lld",
                 (long long)column - 1);
        picture_overlay_text(overlay, (double)(GAP + column * pitch) + 0.5 * (double)width, 0.5 * CAPTION,
                             PICTURE_CENTRE, LETTERS, "#000000", text);
    }
}

void attention_picture_draw(Picture *picture, const PatchPictures *pictures,
                            const AttentionPictureInput *input, PictureOverlay *overlay)
{
    int64_t widest = 0, top = overlay ? CAPTION : GAP, height = top;
    for (int64_t i = 0; i < pictures->count; i++) {
        int64_t width = patch_pictures_width(pictures, i);
        widest = width > widest ? width : widest;
        height += patch_pictures_height(pictures, i) + GAP;
    }
    picture_init(picture, GAP + (input->heads + 2) * (widest + GAP), height);
    if (overlay) draw_captions(overlay, input->heads, widest, widest + GAP);
    for (int64_t i = 0; i < pictures->count; i++) {
        /* narrow pictures stand in the middle of their columns */
        Cell cell = {picture, pictures, i, GAP + (widest - patch_pictures_width(pictures, i)) / 2, top};
        draw_row(cell, input, widest + GAP);
        top += patch_pictures_height(pictures, i) + GAP;
    }
}
