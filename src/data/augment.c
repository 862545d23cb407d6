/* augment.c - see the header. */
#include "data/augment.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/image/image_blur.h"
#include "data/image/image_color.h"
#include "data/image/image_planes.h"
#include "data/image/image_resize.h"

#include <math.h>

struct AugmentScratch {
    uint8_t *picture; /* planes [3, height, width] of what was loaded */
    size_t picture_bytes;
    ImagePart part; /* that it is */
    ImageResizeScratch resize;
    ImageBlurScratch blur;
};

AugmentParams augment_params_default(void)
{
    AugmentView view = {.size = 224,
                        .scale_min = 0.32,
                        .scale_max = 1.0,
                        .ratio_min = 3.0 / 4.0,
                        .ratio_max = 4.0 / 3.0,
                        .flip = 0.5,
                        .jitter = 0.8,
                        .grayscale = 0.2};
    AugmentParams params = {.global = {view, view},
                            .local = view,
                            .local_count = 8,
                            .strength = {0.4, 0.4, 0.2, 0.1},
                            .blur_sigma_min = 0.1,
                            .blur_sigma_max = 2.0,
                            .solarize_threshold = 128};
    params.global[1].blur = 0.9;
    params.global[1].solarize = 0.2;
    params.local.size = 96;
    params.local.scale_min = 0.05;
    params.local.scale_max = 0.32;
    params.local.blur = 0.5;
    return params;
}

AugmentScratch *augment_scratch_create(void)
{
    return memory_alloc(sizeof(AugmentScratch));
}

void augment_scratch_destroy(AugmentScratch *scratch)
{
    if (scratch == NULL) return;
    memory_free(scratch->picture);
    image_resize_scratch_fini(&scratch->resize);
    image_blur_scratch_fini(&scratch->blur);
    memory_free(scratch);
}

/* --- drawing ----------------------------------------------------------------------------------------------
 */

enum { CROP_ATTEMPTS = 10 };

/* The largest centred crop whose ratio is allowed: torchvision's way out when no attempt fits. */
static void fallback_crop(const AugmentView *view, int64_t width, int64_t height, AugmentDraw *draw)
{
    double ratio = (double)width / (double)height;
    draw->width = width;
    draw->height = height;
    if (ratio < view->ratio_min)
        draw->height = (int64_t)rint((double)width / view->ratio_min);
    else if (ratio > view->ratio_max)
        draw->width = (int64_t)rint((double)height * view->ratio_max);
    draw->top = (height - draw->height) / 2;
    draw->left = (width - draw->width) / 2;
}

static void draw_crop(const AugmentView *view, int64_t width, int64_t height, Rng *rng, AugmentDraw *draw)
{
    double area = (double)width * (double)height;
    double log_min = log(view->ratio_min), log_max = log(view->ratio_max);
    bool found = false;
    for (int attempt = 0; attempt < CROP_ATTEMPTS; attempt++) {
        double target = area * rng_uniform(rng, view->scale_min, view->scale_max);
        double ratio = exp(rng_uniform(rng, log_min, log_max));
        if (found) continue; /* the numbers are drawn all the same */
        int64_t w = (int64_t)rint(sqrt(target * ratio));
        int64_t h = (int64_t)rint(sqrt(target / ratio));
        found = w > 0 && w <= width && h > 0 && h <= height;
        draw->width = w;
        draw->height = h;
    }
    double top = rng_uniform01(rng), left = rng_uniform01(rng);
    if (!found) {
        fallback_crop(view, width, height, draw);
        return;
    }
    draw->top = (int64_t)(top * (double)(height - draw->height + 1));
    draw->left = (int64_t)(left * (double)(width - draw->width + 1));
}

AugmentDraw augment_draw(const AugmentParams *params, const AugmentView *view, int64_t width, int64_t height,
                         Rng *rng)
{
    CHECK(width >= 1 && height >= 1);
    AugmentDraw draw = {0};
    draw_crop(view, width, height, rng, &draw);
    draw.flip = rng_uniform01(rng) < view->flip;
    draw.jitter = rng_uniform01(rng) < view->jitter;
    for (int i = 0; i < AUGMENT_JITTERS; i++)
        draw.jitter_order[i] = i;
    for (int i = AUGMENT_JITTERS - 1; i > 0; i--) {
        int j = (int)(rng_uniform01(rng) * (double)(i + 1));
        int swapped = draw.jitter_order[i];
        draw.jitter_order[i] = draw.jitter_order[j];
        draw.jitter_order[j] = swapped;
    }
    for (int i = 0; i < AUGMENT_JITTERS; i++) {
        double strength = params->strength[i];
        draw.factor[i] = i == AUGMENT_HUE ? rng_uniform(rng, -strength, strength)
                                          : rng_uniform(rng, fmax(0.0, 1.0 - strength), 1.0 + strength);
    }
    draw.grayscale = rng_uniform01(rng) < view->grayscale;
    draw.blur = rng_uniform01(rng) < view->blur;
    draw.sigma = rng_uniform(rng, params->blur_sigma_min, params->blur_sigma_max);
    draw.solarize = rng_uniform01(rng) < view->solarize;
    return draw;
}

void augment_draw_all(const AugmentParams *params, int64_t width, int64_t height, Rng rng, AugmentDraw *draws)
{
    CHECK(params->local_count >= 0 && AUGMENT_GLOBAL_CROPS + params->local_count <= AUGMENT_CROPS_MAX);
    for (int64_t i = 0; i < AUGMENT_GLOBAL_CROPS + params->local_count; i++) {
        const AugmentView *view = i < AUGMENT_GLOBAL_CROPS ? &params->global[i] : &params->local;
        draws[i] = augment_draw(params, view, width, height, &rng);
    }
}

/* --- applying ---------------------------------------------------------------------------------------------
 */

void augment_load(AugmentScratch *scratch, const Image *image)
{
    ImagePart whole = {.eighths = 8, .width = image->width, .height = image->height};
    augment_load_part(scratch, image, &whole);
}

void augment_load_part(AugmentScratch *scratch, const Image *image, const ImagePart *part)
{
    CHECK(image->width == part->width && image->height == part->height);
    CHECK(image->rgb != NULL && image->width >= 1 && image->height >= 1);
    size_t bytes = image_planes_bytes(image->width, image->height);
    if (bytes > scratch->picture_bytes) {
        memory_free(scratch->picture);
        scratch->picture = memory_alloc(bytes);
        scratch->picture_bytes = bytes;
    }
    scratch->part = *part;
    image_planes_split(image->rgb, image->width * image->height, scratch->picture);
}

static void apply_jitter(const AugmentDraw *draw, uint8_t *crop, int64_t pixels)
{
    for (int i = 0; i < AUGMENT_JITTERS; i++) {
        int which = draw->jitter_order[i];
        double factor = draw->factor[which];
        if (which == AUGMENT_BRIGHTNESS) image_color_brightness(crop, pixels, factor);
        if (which == AUGMENT_CONTRAST) image_color_contrast(crop, pixels, factor);
        if (which == AUGMENT_SATURATION) image_color_saturation(crop, pixels, factor);
        if (which == AUGMENT_HUE) image_color_hue(crop, pixels, factor);
    }
}

/* The crop in the loaded part: the pixels that it touches, and what it is of them. In a part of full size
 * that is the crop itself. */
static ImageResizeSource source_of(const AugmentScratch *scratch, const AugmentDraw *draw)
{
    const ImagePart *part = &scratch->part;
    double scale = part->eighths / 8.0; /* exact, like all that follows */
    double top = (double)draw->top * scale - (double)part->top;
    double left = (double)draw->left * scale - (double)part->left;
    double height = (double)draw->height * scale, width = (double)draw->width * scale;
    int64_t first_row = (int64_t)floor(top), first_column = (int64_t)floor(left);
    return (ImageResizeSource){.planes = scratch->picture,
                               .picture_height = part->height,
                               .picture_width = part->width,
                               .top = first_row,
                               .left = first_column,
                               .height = (int64_t)ceil(top + height) - first_row,
                               .width = (int64_t)ceil(left + width) - first_column,
                               .inset_top = top - (double)first_row,
                               .inset_left = left - (double)first_column,
                               .span_height = height,
                               .span_width = width};
}

void augment_apply(const AugmentParams *params, const AugmentDraw *draw, int64_t size, uint8_t *crop,
                   AugmentScratch *scratch)
{
    CHECK(scratch->picture != NULL && size >= 1);
    ImageResizeSource source = source_of(scratch, draw);
    ImageResizeTarget target = {
        .height = size, .width = size, .rows = size, .columns = size, .mirror = draw->flip};
    int64_t pixels = size * size;
    image_resize(&source, &target, crop, &scratch->resize);
    if (draw->jitter) apply_jitter(draw, crop, pixels);
    if (draw->grayscale) image_color_grayscale(crop, pixels);
    if (draw->blur) image_blur(crop, size, size, draw->sigma, &scratch->blur);
    if (draw->solarize) image_color_solarize(crop, pixels, params->solarize_threshold);
}

void augment_crops(const AugmentParams *params, const AugmentDraw *draws, uint8_t *global_crops,
                   uint8_t *local_crops, AugmentScratch *scratch)
{
    CHECK(params->global[0].size == params->global[1].size);
    int64_t global = params->global[0].size, local = params->local.size;
    for (int64_t i = 0; i < AUGMENT_GLOBAL_CROPS; i++)
        augment_apply(params, &draws[i], global, global_crops + i * 3 * global * global, scratch);
    for (int64_t i = 0; i < params->local_count; i++)
        augment_apply(params, &draws[AUGMENT_GLOBAL_CROPS + i], local, local_crops + i * 3 * local * local,
                      scratch);
}

void augment_sample(const AugmentParams *params, const Image *image, Rng rng, uint8_t *global_crops,
                    uint8_t *local_crops, AugmentScratch *scratch)
{
    AugmentDraw draws[AUGMENT_CROPS_MAX] = {0};
    augment_draw_all(params, image->width, image->height, rng, draws);
    augment_load(scratch, image);
    augment_crops(params, draws, global_crops, local_crops, scratch);
}

/* Offset of a centred crop; torchvision rounds half to even. */
static int64_t centre(int64_t length, int64_t crop)
{
    return (int64_t)rint((double)(length - crop) / 2.0);
}

static AugmentBox load_whole(const Image *image, AugmentScratch *scratch)
{
    augment_load(scratch, image);
    return (AugmentBox){.height = image->height, .width = image->width};
}

static ImageResizeSource source_of_box(const AugmentScratch *scratch, const AugmentBox *box)
{
    CHECK(box->top >= 0 && box->height >= 1 && box->top + box->height <= scratch->part.height);
    CHECK(box->left >= 0 && box->width >= 1 && box->left + box->width <= scratch->part.width);
    return (ImageResizeSource){.planes = scratch->picture,
                               .picture_height = scratch->part.height,
                               .picture_width = scratch->part.width,
                               .top = box->top,
                               .left = box->left,
                               .height = box->height,
                               .width = box->width};
}

void augment_resize_box(const AugmentBox *box, int64_t height, int64_t width, ImageResizeFilter filter,
                        uint8_t *out, AugmentScratch *scratch)
{
    ImageResizeSource source = source_of_box(scratch, box);
    ImageResizeTarget target = {.height = height,
                                .width = width,
                                .rows = height,
                                .columns = width,
                                .mirror = box->mirror,
                                .filter = filter};
    image_resize(&source, &target, out, &scratch->resize);
}

void augment_resize_window(const AugmentWindow *window, uint8_t *out, AugmentScratch *scratch)
{
    AugmentBox whole = {.height = scratch->part.height, .width = scratch->part.width};
    ImageResizeSource source = source_of_box(scratch, &whole);
    ImageResizeTarget target = {.height = window->height,
                                .width = window->width,
                                .top = window->top,
                                .left = window->left,
                                .rows = window->rows,
                                .columns = window->columns,
                                .mirror = window->mirror,
                                .filter = IMAGE_RESIZE_BILINEAR};
    image_resize(&source, &target, out, &scratch->resize);
}

void augment_resize(const Image *image, int64_t height, int64_t width, uint8_t *out, AugmentScratch *scratch)
{
    AugmentBox whole = load_whole(image, scratch);
    augment_resize_box(&whole, height, width, IMAGE_RESIZE_BILINEAR, out, scratch);
}

void augment_eval_box(const AugmentBox *box, int64_t resize_size, int64_t crop_size, uint8_t *crop,
                      AugmentScratch *scratch)
{
    CHECK(crop_size >= 1 && crop_size <= resize_size);
    int64_t width = box->width, height = box->height;
    ImageResizeSource source = source_of_box(scratch, box);
    ImageResizeTarget target = {.height = resize_size,
                                .width = resize_size,
                                .rows = crop_size,
                                .columns = crop_size,
                                .mirror = box->mirror};
    if (width <= height)
        target.height = (int64_t)((double)(resize_size * height) / (double)width);
    else
        target.width = (int64_t)((double)(resize_size * width) / (double)height);
    target.top = centre(target.height, crop_size);
    target.left = centre(target.width, crop_size);
    image_resize(&source, &target, crop, &scratch->resize);
}

void augment_eval(const Image *image, int64_t resize_size, int64_t crop_size, uint8_t *crop,
                  AugmentScratch *scratch)
{
    AugmentBox whole = load_whole(image, scratch);
    augment_eval_box(&whole, resize_size, crop_size, crop, scratch);
}
