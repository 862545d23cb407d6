/* feature_extractor.h - a loaded network over a data set: one row of numbers per image, or one for each view
 * of it (data/image_views.h), one after the other.
 *
 * Source: dinov2/eval/utils.py (extract_features, ModelWithNormalize without its normalisation). Each rank
 * computes a contiguous part of the data set in its own order and keeps the rows; who needs them elsewhere
 * moves them (feature_rows.h). Images that cannot be read are left out, counted, and named once in the log.
 *
 *     FeatureExtractor extractor = {.kind = FEATURE_CLASS_TOKEN, .input = input, .backbone = &backbone, ...};
 *     OpsLimits limits = feature_extractor_limits(&extractor);
 *     Ops *ops = ops_cpu_create(&limits, threads);
 *     TRY(feature_extractor_run(&extractor, ops, comm, set, &rows, error));
 *     ...; feature_rows_fini(&rows);
 *
 * It loads no weights, writes no files, and does not augment.
 */
#ifndef DINOBATCH_FEATURES_FEATURE_EXTRACTOR_H
#define DINOBATCH_FEATURES_FEATURE_EXTRACTOR_H

#include "base/log.h"
#include "data/data_set.h"
#include "features/backbone_pass.h"
#include "features/descriptor_pass.h"
#include "features/feature_rows.h"
#include "features/whitening.h"

/* What a row is. D: the backbone's width. */
typedef enum {
    FEATURE_CLASS_TOKEN, /* [D] class token after the final norm (x_norm_clstoken) */
    FEATURE_MEAN_PATCH,  /* [D] mean of the patch tokens after the final norm */
    FEATURE_PATCH_GRID, /* [side * side * D] patch tokens behind the first blocks of the network and the final
                           norm, averaged over side x side places (patch_grid.h): a row that keeps where
                           things are, which a network that was trained for minutes tells copies by */
    FEATURE_PATCHES,    /* none: patch tokens alone */
    FEATURE_EMBEDDING,  /* [dims] of a copy-detection network, of unit length */
    FEATURE_RAW_PIXELS, /* [3 * size * size] of the small picture in [0, 1]; size =
                           feature_extractor_raw_size: the floor that any learning has to beat */
} FeatureKind;

/* Of FEATURE_PATCH_GRID. */
typedef struct {
    int64_t blocks; /* transformer blocks that are computed, from 1 */
    int64_t side;   /* places a side, from 1 to the patches of a side */
} FeatureGrid;

/* How images become the network's input. */
typedef struct {
    EvalTransform transform;        /* EVAL_SHORTER for FEATURE_EMBEDDING alone; for it EVAL_SQUARE else */
    int64_t resize_size, crop_size; /* as in EvalLoaderParams; pixels */
    EvalSize size;                  /* of EVAL_WHOLE, which is for backbones, as EVAL_NATIVE is */
    int64_t most_patches;           /* of EVAL_NATIVE */
    int64_t batch_size; /* images of one pass at most; all views of a picture are in one, whatever it says */
    int num_workers;    /* loader threads of this rank; 0: none */
    bool upside_down, grayscale; /* as in EvalLoaderParams */
} FeatureInput;

typedef struct {
    FeatureKind kind;
    FeatureGrid grid; /* of FEATURE_PATCH_GRID, whose backbone has no hooks */
    bool patches;     /* the patch tokens, too; for feature_stream.h, and not with FEATURE_PATCH_GRID */
    FeatureInput input;
    const ImageViews *views;             /* NULL: whole pictures alone; borrowed */
    const FeatureBackbone *backbone;     /* of FEATURE_CLASS_TOKEN, FEATURE_MEAN_PATCH, FEATURE_PATCH_GRID */
    const FeatureDescriptor *descriptor; /* of FEATURE_EMBEDDING */
    const Whitening *whitening;          /* what becomes of each row; NULL: nothing; borrowed */
    Log *log;                            /* progress and unreadable images; borrowed */
    const char *what;                    /* for progress: "features of the training set"; borrowed */
} FeatureExtractor;

enum { FEATURE_LAYER = 64 };

/* "class_token", "mean_patch", "grid:BLOCKS:SIDE", "patch", "embedding", "raw_pixels": what a row is, for
 * files. Of a FeatureExtractor it looks at kind and grid alone. */
void feature_extractor_layer(const FeatureExtractor *extractor, char out[FEATURE_LAYER]);

/* Sets kind, grid and patches from such a word of a vision transformer, or one with "+patch" behind it.
 * STATUS_INPUT: it is none. */
Status feature_extractor_parse_layer(FeatureExtractor *extractor, const char *layer, Error *error);

/* STATUS_INPUT when the patch size does not divide the crop or the size, the crop is larger than the resized
 * picture, or the grid asks for more blocks or places than there are. */
Status feature_extractor_check(const FeatureExtractor *extractor, Error *error);

/* Edge of the picture whose pixels FEATURE_RAW_PIXELS takes: the crop's, 32 at most. */
int64_t feature_extractor_raw_size(const FeatureInput *input);

/* Rows of a picture. */
int64_t feature_extractor_views(const FeatureExtractor *extractor);

/* Columns of a row before whitening; 0 of FEATURE_PATCHES. */
int64_t feature_extractor_columns(const FeatureExtractor *extractor);

/* What ops must be made for. */
OpsLimits feature_extractor_limits(const FeatureExtractor *extractor);

/* Rows of all readable images of `set`, this rank's part; not patch tokens, and not of EVAL_NATIVE. Released
 * by feature_rows_fini, also after failure. Work space is planned once and allocated before the first image.
 * STATUS_INPUT when not one image is readable. The outcome is agreed. Collective over COMM. */
Status feature_extractor_run(const FeatureExtractor *extractor, const Ops *ops, Comm *comm,
                             const DataSet *set, FeatureRows *rows, Error *error);

/* out[n * patches, D] fp32: patch tokens after the final norm of images[n, 3, height, width], grey levels, as
 * one pass. `ops` stands for n images of that size. Allocates its work space. Not collective. */
void feature_extractor_patch_tokens(const FeatureBackbone *backbone, const Ops *ops, uint8_t *images,
                                    int64_t n, int64_t height, int64_t width, float *out);

#endif
