/* synthetic_draw.h - procedural labelled pictures: the ground truth of demos and tests.
 *
 * A class is a pair (shape, texture): with n = min(max(ceil(classes / 2), 2), 10) shapes and as many
 * textures, class c has shape c % n and texture (c + c / n) % n. So for 10 classes each of 5 shapes and 5
 * textures serves two classes: either alone tells at most every second picture.
 *
 * Nuisances, uniform, in shares of the side unless said otherwise (fixed before the first training):
 *   object      centre 0.5 +- 0.13, radius 0.29..0.44, rotation +- 30 degrees
 *   texture     period 0.14..0.19, any phase, rotation +- 20 degrees against the object's
 *   colours     two of the object, any RGB that differ by 0.35 in luma; the first one at least 0.4 (RGB
 *               distance) from the background's mean
 *   background  gradient in any direction between two colours, each half way to gray; smooth noise of 4
 *               and 9 cells a side with amplitude 0..0.22 and 0..0.12
 *   clutter     3..9 discs, bars and boxes of 0.02..0.06 behind the object, 0..2 before it, any RGB
 *   light       shading across the picture of +- 25 %, noise per sample with deviation 0..0.04
 *
 * Floors for 10 classes at 64 pixels, cosine k-NN with k = 20 on raw pixels, 5000 images of seed 0 against
 * 1000 of seed 1 (chance 10 %): 16.1 % by majority, 16.2 % weighted by exp(s / 0.07); on pixels without
 * their mean picture 18.8 % and 22.3 %; on pixels normalised as the network sees them 19.3 % and 23.0 %.
 *
 * Labels: every run of `classes` consecutive images holds each class once, in random order.
 *
 * Near-duplicates (`duplicates` of all images) show the scene of another image through a window of
 * 0.75..0.97 of its side, mirrored or not, with brightness +- 0.12, contrast 0.75..1.25 and noise of their
 * own; label and mask are those of the scene.
 *
 * Everything is a function of (seed, index) and, for duplicates, count; nothing is stored. It imitates no
 * photograph and claims no relation to natural images.
 */
#ifndef DINOBATCH_DATA_SYNTHETIC_DRAW_H
#define DINOBATCH_DATA_SYNTHETIC_DRAW_H

#include "data/image/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SYNTHETIC_MAX_CLASSES = 100,
    SYNTHETIC_MIN_SIZE = 16,
    SYNTHETIC_MAX_SIZE = 1024,
};

typedef struct {
    int64_t classes; /* 2 .. SYNTHETIC_MAX_CLASSES */
    int64_t size;    /* pixels a side */
    int64_t count;   /* images, >= 1 */
    uint64_t seed;
    double duplicates; /* share of images that are near-duplicates, 0 .. 0.5 */
} SyntheticParams;

/* How an image shows its scene. */
typedef struct {
    int64_t source;  /* the image whose scene it shows: itself, or that of which it is a near-duplicate */
    float left, top; /* of the window in the scene, shares of its side */
    float extent;    /* side of the window, 1 for an original */
    bool mirrored;
    float brightness, contrast; /* value = (value - 0.5) * contrast + 0.5 + brightness */
} SyntheticView;

/* 10 classes of 64 pixels, 5000 images, seed 0, no duplicates. */
SyntheticParams synthetic_draw_defaults(void);

int64_t synthetic_draw_label(const SyntheticParams *params, int64_t index);

/* "striped_disc" into text[size]. */
void synthetic_draw_class_name(const SyntheticParams *params, int64_t label, char *text, size_t size);

SyntheticView synthetic_draw_view(const SyntheticParams *params, int64_t index);

/* Image `index` [size, size]. */
void synthetic_draw_image(const SyntheticParams *params, int64_t index, Image *image);

/* mask [size, size]: label + 1 where the pixel's centre shows the object, 0 elsewhere. */
void synthetic_draw_mask(const SyntheticParams *params, int64_t index, uint8_t *mask);

#endif
