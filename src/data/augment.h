/* augment.h - the multi-crop augmentation of DINOv2 and the evaluation transform, on one decoded picture.
 *
 * Source: dinov2/data/augmentations.py and transforms.py on PIL 9.4 and torchvision 0.14, whose arithmetic is
 * followed bit by bit (image/ operators). What is random is drawn first (augment_draw), then applied
 * (augment_apply), so that fixed parameters go through the very same code.
 * Order: crop, resize, flip; colour jitter in its drawn order; grayscale; blur; solarize. All of it is 8-bit
 * arithmetic, so crops are bytes, in planes; they are normalised where they are used (pixel_levels.h). It is
 * not a general pipeline of transforms.
 *
 *     AugmentScratch *scratch = augment_scratch_create();      // one per thread
 *     AugmentParams params = augment_params_default();
 *     augment_sample(&params, &image, rng_at(seed, RNG_AUGMENT, step, place), global, local, scratch);
 */
#ifndef DINOBATCH_DATA_AUGMENT_H
#define DINOBATCH_DATA_AUGMENT_H

#include "base/rng.h"
#include "data/image/image_decode.h"
#include "data/image/image_resize.h"

#include <stdbool.h>
#include <stdint.h>

enum { AUGMENT_GLOBAL_CROPS = 2 };

/* Colour operations in the order in which jitter numbers them. */
typedef enum {
    AUGMENT_BRIGHTNESS = 0,
    AUGMENT_CONTRAST,
    AUGMENT_SATURATION,
    AUGMENT_HUE,
    AUGMENT_JITTERS
} AugmentJitter;

/* One kind of crop. Probabilities are those really applied: the reference's GaussianBlur(p) applies with 1 -
 * p. */
typedef struct {
    int64_t size;                /* side of the square output, pixels, >= 1 */
    double scale_min, scale_max; /* area of the crop as a share of the picture's */
    double ratio_min, ratio_max; /* width / height of the crop */
    double flip;                 /* probabilities */
    double jitter;
    double grayscale;
    double blur;
    double solarize;
} AugmentView;

typedef struct {
    AugmentView global[AUGMENT_GLOBAL_CROPS];
    AugmentView local;
    int64_t local_count;
    double strength[AUGMENT_JITTERS]; /* brightness, contrast, saturation: factor in [max(0, 1-s), 1+s]; hue:
                                         shift in [-s, s], s <= 0.5 */
    double blur_sigma_min, blur_sigma_max; /* pixels */
    int solarize_threshold;                /* values >= it are inverted */
} AugmentParams;

/* What the reference does: crops of 224 and 96, scales 0.32-1 and 0.05-0.32, 8 local crops, effective blur
 * probabilities 0 (first global crop), 0.9 (second), 0.5 (local), solarize 0.2 on the second global crop
 * only. */
AugmentParams augment_params_default(void);

/* Everything random about one crop. */
typedef struct {
    int64_t top, left, height, width; /* of the crop, inside the picture */
    bool flip, jitter, grayscale, blur, solarize;
    int jitter_order[AUGMENT_JITTERS]; /* a permutation of AugmentJitter */
    double factor[AUGMENT_JITTERS];    /* by AugmentJitter */
    double sigma;                      /* of the blur, pixels */
} AugmentDraw;

/* Working memory of one thread; grows to the largest picture and crop that it has seen. */
typedef struct AugmentScratch AugmentScratch;

AugmentScratch *augment_scratch_create(void);
void augment_scratch_destroy(AugmentScratch *scratch);

/* Draws one crop of a width x height picture. Takes exactly AUGMENT_DRAW_COUNT uniform numbers from `rng`,
 * whatever they decide, in this order: area and log aspect of 10 attempts; top, left; flip; jitter; three for
 * the jitter order; brightness, contrast, saturation, hue; grayscale; blur; sigma; solarize. */
enum { AUGMENT_DRAW_COUNT = 35 };
AugmentDraw augment_draw(const AugmentParams *params, const AugmentView *view, int64_t width, int64_t height,
                         Rng *rng);

/* Draws all crops of one sample of a width x height picture, draws[2 + local_count]: the two global crops,
 * then the local ones, each after the one before. */
enum { AUGMENT_CROPS_MAX = AUGMENT_GLOBAL_CROPS + 64 };
void augment_draw_all(const AugmentParams *params, int64_t width, int64_t height, Rng rng,
                      AugmentDraw *draws);

/* Makes `image` the picture that augment_apply crops from, until the next call. `image` may be freed after.
 */
void augment_load(AugmentScratch *scratch, const Image *image);

/* The same with a part of a picture (image_decode_part). Draws speak of the whole picture; a crop must lie
 * inside the part. */
void augment_load_part(AugmentScratch *scratch, const Image *image, const ImagePart *part);

/* The crop of the loaded picture that `draw` describes: planes crop [3, size, size] uint8 in RGB order. */
void augment_apply(const AugmentParams *params, const AugmentDraw *draw, int64_t size, uint8_t *crop,
                   AugmentScratch *scratch);

/* The crops of the loaded picture that `draws` describe: global_crops [2, 3, G, G], local_crops
 * [local_count, 3, L, L] uint8 (may be NULL when local_count is 0). */
void augment_crops(const AugmentParams *params, const AugmentDraw *draws, uint8_t *global_crops,
                   uint8_t *local_crops, AugmentScratch *scratch);

/* Draws, loads and crops. */
void augment_sample(const AugmentParams *params, const Image *image, Rng rng, uint8_t *global_crops,
                    uint8_t *local_crops, AugmentScratch *scratch);

/* Evaluation: shorter side to resize_size (bicubic), centre crop. crop [3, crop_size, crop_size] uint8;
 * 1 <= crop_size <= resize_size. Only the pixels of the crop are computed. */
void augment_eval(const Image *image, int64_t resize_size, int64_t crop_size, uint8_t *crop,
                  AugmentScratch *scratch);

/* All of a picture as out [3, height, width] uint8, whatever its shape was (bilinear). */
void augment_resize(const Image *image, int64_t height, int64_t width, uint8_t *out, AugmentScratch *scratch);

/* A box of the picture that augment_load made the current one. */
typedef struct {
    int64_t top, left, height, width; /* inside the picture, not empty */
    bool mirror;                      /* the result, left to right */
} AugmentBox;

/* What of the current picture, scaled to height x width (bilinear), is wanted. */
typedef struct {
    int64_t height, width;
    int64_t top, left, rows, columns; /* inside of them, not empty */
    bool mirror;                      /* the result, left to right */
} AugmentWindow;

/* out [3, rows, columns] uint8. */
void augment_resize_window(const AugmentWindow *window, uint8_t *out, AugmentScratch *scratch);

/* augment_eval and augment_resize (by a filter) of a box, which they take for the whole picture. */
void augment_eval_box(const AugmentBox *box, int64_t resize_size, int64_t crop_size, uint8_t *crop,
                      AugmentScratch *scratch);
void augment_resize_box(const AugmentBox *box, int64_t height, int64_t width, ImageResizeFilter filter,
                        uint8_t *out, AugmentScratch *scratch);

#endif
