/* dense_task.h - what the classifiers of patches are trained for: a loss over the pixels of a picture, and
 * figures. segmentation_task.c, depth_task.c.
 *
 * A classifier's map holds `channels` scores for each patch of a frame (data/pair_loader.h); a task reads it
 * at the pixels of the mask (bilinear_map.h).
 */
#ifndef DINOBATCH_EVAL_DENSE_TASK_H
#define DINOBATCH_EVAL_DENSE_TASK_H

#include "data/pair_loader.h"
#include "eval/bilinear_map.h"

enum { DENSE_BUFFERS = 5, DENSE_DEPTH_CELLS = 5 };

/* Memory of one thread. Zero-initialised it is empty; dense_work_fini. */
typedef struct {
    float *buffer[DENSE_BUFFERS];
    int64_t room[DENSE_BUFFERS];
    BilinearMap grid, mask; /* a task's tables */
} DenseWork;

/* At least `count` floats of buffer `which`, kept between calls of the same one. */
float *dense_work_floats(DenseWork *work, int which, int64_t count);
void dense_work_fini(DenseWork *work);

typedef struct DenseTask DenseTask;
struct DenseTask {
    int64_t channels; /* scores of a patch */
    int64_t cells;    /* numbers that a measurement counts, added up over pictures and ranks */
    int mask_bits;
    bool class_token; /* a classifier reads it beside each patch token */
    /* Segmentation. */
    int64_t ignore; /* class that does not count */
    /* Depth: metres; `scale` units of a mask in a metre. */
    double low, high, scale;

    /* The loss of a picture; map[grid, channels] becomes `weight` times its gradient. */
    double (*learn)(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *sample,
                    float *map, double weight);
    /* Adds a picture to cells: the mean of what the maps of its views say, beside the first one's mask. */
    void (*measure)(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *views,
                    int64_t view_count, float *const *maps, double *cells);
    /* More is better. */
    double (*score)(const DenseTask *task, const double *cells);
};

/* A class for each pixel: cross-entropy; cells are a confusion table [classes, classes]. */
DenseTask segmentation_task(int64_t classes, int64_t ignore);

/* A depth for each pixel, the mean of `bins` depths evenly from low to high under scores that are made
 * positive and divided by their sum; cells are sums over pictures of what DepthFigures holds. */
DenseTask depth_task(double low, double high, int64_t bins, double scale);

/* Means over pictures, of pixels whose depth is inside the range. */
typedef struct {
    double rmse;    /* metres */
    double abs_rel; /* |said - true| / true */
    double delta1;  /* share with max(said / true, true / said) < 1.25 */
    int64_t pictures, pixels;
} DepthFigures;
void depth_task_figures(DepthFigures *out, const double cells[DENSE_DEPTH_CELLS]);

/* map: from a grid of `finer` cells a patch to `height` x `width` pixels over the picture in its frame. */
void dense_task_map(BilinearMap *map, const PairSample *sample, int64_t patch_size, int64_t finer,
                    int64_t height, int64_t width, int64_t channels);

#endif
