/* patch_matches.h - patches of two pictures that are each other's nearest, joined by lines.
 *
 * Source: DINOv2 paper, figure 10 (matching across images). Similarity is the cosine of the patch features;
 * of matches that lie close together in either picture the most similar one is drawn.
 */
#ifndef DINOBATCH_REPORT_PATCH_MATCHES_H
#define DINOBATCH_REPORT_PATCH_MATCHES_H

#include "report/patch_pictures.h"
#include "report/picture_overlay.h"

typedef struct {
    int64_t from, to; /* patches of the first and of the second picture, each counted from its own first */
    float similarity;
} PatchMatch;

/* Patches of pictures a and b that are mutually nearest among the patches with foreground[patches] (NULL: all
 * of them), the most similar first, in matches[patches of a]; returns how many. Of similar ones the lower
 * patch is the nearer. `pictures` after patch_pictures_compute. */
int64_t patch_matches_find(PatchMatch *matches, const PatchPictures *pictures, int64_t a, int64_t b,
                           const uint8_t *foreground);

/* Keeps of matches[n] those that are at least `apart` patches away, in both pictures, from all that were kept
 * before, `most` at most; returns how many. */
int64_t patch_matches_thin(PatchMatch *matches, int64_t n, const PatchPictures *pictures, int64_t a,
                           int64_t b, double apart, int64_t most);

/* Pictures 2 i and 2 i + 1 side by side, a row for each pair, with at most `most` lines each; a last picture
 * without partner is not drawn. Lines go to `overlay`; returns how many. Released by picture_fini. */
int64_t patch_matches_draw(Picture *picture, const PatchPictures *pictures, const uint8_t *foreground,
                           int64_t most, PictureOverlay *overlay);

#endif
