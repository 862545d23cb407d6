/* patch_pictures.h - some pictures of a data set, whole and in their own proportions, cut into patches: what
 * pictures of patch features are drawn from.
 *
 * The shorter side becomes the size that is asked for and the longer one keeps the proportion, both rounded
 * to whole patches. DEVIATION from whole pictures in their proportions: beyond 4 to 1 they are squeezed.
 *
 *     TRY(patch_pictures_load(&pictures, &params, set, log, error));
 *     OpsLimits limits = patch_pictures_limits(&pictures, &backbone);
 *     ...; patch_pictures_compute(&pictures, &backbone, ops);
 */
#ifndef DINOBATCH_REPORT_PATCH_PICTURES_H
#define DINOBATCH_REPORT_PATCH_PICTURES_H

#include "features/feature_extractor.h"
#include "report/picture.h"

typedef struct {
    int64_t index; /* in the data set */
    int64_t grid_height, grid_width;
    int64_t first;  /* its first patch among those of all pictures */
    uint8_t *input; /* [3, grid_height * patch_size, grid_width * patch_size] what the network sees; owned */
    uint8_t *rgb;   /* [grid_height * cell, grid_width * cell, 3] as it is drawn; owned */
} PatchPicture;

typedef struct {
    int64_t count;
    PatchPicture *pictures; /* [count] owned */
    int64_t patch_size;     /* pixels of the network's input */
    int64_t cell;           /* edge of a patch as it is drawn, pixels */
    int64_t patches;        /* of all pictures */
    int64_t d;              /* 0 before patch_pictures_compute */
    float *tokens;          /* [patches, d] after the final norm; owned */
} PatchPictures;

typedef struct {
    int64_t patch_size;
    int64_t size;   /* of the shorter side of the network's input, pixels */
    int64_t drawn;  /* of the shorter side as it is drawn, about, pixels */
    bool grayscale; /* of the network's input: for one that was trained on such crops alone */
} PatchPicturesParams;

/* All readable pictures of `set`; the others are named in the log. STATUS_INPUT: none is readable. Released
 * by patch_pictures_fini, also after a failure. Not collective. */
Status patch_pictures_load(PatchPictures *pictures, const PatchPicturesParams *params, const DataSet *set,
                           Log *log, Error *error);
void patch_pictures_fini(PatchPictures *pictures);

/* What ops must be made for, to run the network on any of the pictures. */
OpsLimits patch_pictures_limits(const PatchPictures *pictures, const FeatureBackbone *backbone);

/* Fills in tokens. Not collective. */
void patch_pictures_compute(PatchPictures *pictures, const FeatureBackbone *backbone, const Ops *ops);

/* Pixels of a picture as it is drawn. */
int64_t patch_pictures_width(const PatchPictures *pictures, int64_t i);
int64_t patch_pictures_height(const PatchPictures *pictures, int64_t i);

#endif
