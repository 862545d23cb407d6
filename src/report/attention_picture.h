/* attention_picture.h - what class tokens look at: each picture beside a map for each head of one block.
 *
 * Source: DINO's visualize_attention.py, whose convention the maps keep: the class token's attention to the
 * patches, without class token and registers, from dark (the map's least) to bright (its largest weight),
 * each head by itself. With a mass the picture itself is shown where the patches are that make up so much of
 * the patches' attention, and dim elsewhere.
 */
#ifndef DINOBATCH_REPORT_ATTENTION_PICTURE_H
#define DINOBATCH_REPORT_ATTENTION_PICTURE_H

#include "report/patch_pictures.h"
#include "report/picture_overlay.h"

/* out[heads, pictures->patches] = attention of each picture's class token to its patches in block `block`
 * (from 0). Not collective. */
void attention_picture_compute(float *out, const PatchPictures *pictures, const FeatureBackbone *backbone,
                               const Ops *ops, int64_t block);

typedef struct {
    int64_t heads;
    const float *weights; /* [heads, pictures->patches] */
    double mass;          /* of what is shown; 0: maps of all weights */
} AttentionPictureInput;

/* A row for each picture: itself, the mean of the heads, each head. Captions go to `overlay`, unless it is
 * NULL. Released by picture_fini. */
void attention_picture_draw(Picture *picture, const PatchPictures *pictures,
                            const AttentionPictureInput *input, PictureOverlay *overlay);

#endif
