/* patch_pictures.c - see patch_pictures.h. */
#include "report/patch_pictures.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/image/image_color.h"
#include "report/fitted_image.h"

#include <math.h>
#include <string.h>

enum { LONGEST = 4 };

/* Patches of the shorter side. */
static int64_t grid_of(const PatchPicturesParams *params)
{
    return lround((double)params->size / (double)params->patch_size);
}

/* Patches of a side of `length` pixels where the shorter one, of `shorter` pixels, has `grid`. */
static int64_t patches_of(int64_t length, int64_t shorter, int64_t grid)
{
    int64_t patches = lround((double)length / (double)shorter * (double)grid);
    return patches < LONGEST * grid ? patches : LONGEST * grid;
}

static void take(PatchPictures *pictures, FittedImage *fitted, int64_t index,
                 const PatchPicturesParams *params)
{
    PatchPicture *picture = &pictures->pictures[pictures->count++];
    const Image *image = &fitted->image;
    int64_t p = pictures->patch_size, grid = grid_of(params),
            shorter = image->width < image->height ? image->width : image->height;
    *picture = (PatchPicture){.index = index,
                              .grid_height = patches_of(image->height, shorter, grid),
                              .grid_width = patches_of(image->width, shorter, grid),
                              .first = pictures->patches};
    int64_t patches = picture->grid_height * picture->grid_width;
    pictures->patches += patches;
    fitted_image_resize(fitted, picture->grid_width * p, picture->grid_height * p);
    picture->input = memory_alloc_array((size_t)patches, (size_t)(3 * p * p));
    memcpy(picture->input, fitted->fitted, (size_t)(3 * patches * p * p));
    if (params->grayscale) image_color_grayscale(picture->input, patches * p * p);
    int64_t width = picture->grid_width * pictures->cell, height = picture->grid_height * pictures->cell;
    fitted_image_resize(fitted, width, height);
    picture->rgb = memory_alloc_array((size_t)width, (size_t)(3 * height));
    fitted_image_interleave(picture->rgb, fitted->fitted, width, height);
}

Status patch_pictures_load(PatchPictures *pictures, const PatchPicturesParams *params, const DataSet *set,
                           Log *log, Error *error)
{
    int64_t n = data_set_count(set), grid = grid_of(params);
    CHECK(grid >= 1 && params->drawn >= 1);
    int64_t cell = lround((double)params->drawn / (double)grid);
    *pictures = (PatchPictures){.patch_size = params->patch_size,
                                .cell = cell > 0 ? cell : 1,
                                .pictures = memory_alloc_array((size_t)n, sizeof *pictures->pictures)};
    FittedImage fitted = {0};
    Status status = STATUS_OK;
    for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
        Error reason = {0};
        status = fitted_image_load(&fitted, set, i, &reason);
        if (status == STATUS_OK) take(pictures, &fitted, i, params);
        if (status == STATUS_OK) continue;
        if (status == STATUS_INPUT) {
            log_warning(log, "%s; left out", reason.text);
            status = STATUS_OK;
        } else
            status_fail(error, status, "%s", reason.text);
    }
    fitted_image_fini(&fitted);
    if (status == STATUS_OK && pictures->count == 0)
        status = status_fail(error, STATUS_INPUT, "none of the pictures can be read");
    return status;
}

void patch_pictures_fini(PatchPictures *pictures)
{
    for (int64_t i = 0; i < pictures->count; i++) {
        memory_free(pictures->pictures[i].input);
        memory_free(pictures->pictures[i].rgb);
    }
    memory_free(pictures->pictures);
    memory_free(pictures->tokens);
    *pictures = (PatchPictures){0};
}

OpsLimits patch_pictures_limits(const PatchPictures *pictures, const FeatureBackbone *backbone)
{
    const PatchPicture *largest = &pictures->pictures[0];
    for (int64_t i = 1; i < pictures->count; i++) {
        const PatchPicture *picture = &pictures->pictures[i];
        if (picture->grid_height * picture->grid_width > largest->grid_height * largest->grid_width)
            largest = picture;
    }
    int64_t p = pictures->patch_size;
    return backbone_pass_limits(backbone, 1, largest->grid_height * p, largest->grid_width * p);
}

void patch_pictures_compute(PatchPictures *pictures, const FeatureBackbone *backbone, const Ops *ops)
{
    int64_t p = pictures->patch_size;
    pictures->d = backbone->vit->config.embed_dim;
    pictures->tokens =
        memory_alloc_array((size_t)pictures->patches, (size_t)pictures->d * sizeof *pictures->tokens);
    for (int64_t i = 0; i < pictures->count; i++) {
        const PatchPicture *picture = &pictures->pictures[i];
        feature_extractor_patch_tokens(backbone, ops, picture->input, 1, picture->grid_height * p,
                                       picture->grid_width * p,
                                       pictures->tokens + picture->first * pictures->d);
    }
}

int64_t patch_pictures_width(const PatchPictures *pictures, int64_t i)
{
    return pictures->pictures[i].grid_width * pictures->cell;
}

int64_t patch_pictures_height(const PatchPictures *pictures, int64_t i)
{
    return pictures->pictures[i].grid_height * pictures->cell;
}
