/* segmentation_task.c - classes of pixels.
 *
 * Source: the reference's segmentation notebook and dinov2/eval/segmentation: scores of patches, read
 * bilinearly at each pixel, softmax and cross-entropy; a picture's loss is the sum over the pixels that count
 * divided by all of them, as mmsegmentation's cross-entropy with its defaults. Several views: the mean of
 * their probabilities (mmsegmentation's aug_test).
 * DEVIATION: pixels are read where they lie in the padded frame; the reference stretches the padded grid over
 * the picture without its padding, half a patch off at most.
 */
#include "eval/confusion.h"
#include "eval/dense_task.h"

#include "base/memory.h"
#include "ops/cpu/vector_math.h"

#include <math.h>
#include <string.h>

enum { ROW, SCRATCH, GRADIENT, MEAN };

/* scores[K] become probabilities; returns ln sum exp. */
static float softmax(float *scores, int64_t K)
{
    float largest = scores[0], sum = 0.0f;
    for (int64_t k = 1; k < K; k++)
        largest = scores[k] > largest ? scores[k] : largest;
    for (int64_t k = 0; k < K; k++)
        scores[k] = vector_exp(scores[k] - largest);
    for (int64_t k = 0; k < K; k++)
        sum += scores[k];
    float part = 1.0f / sum;
    for (int64_t k = 0; k < K; k++)
        scores[k] *= part;
    return largest + logf(sum);
}

/* row[n, K] become gradients; returns the sum of the losses of the pixels that count. */
static double learn_row(float *row, const uint16_t *classes, int64_t n, int64_t K, int64_t ignore,
                        float weight)
{
    double loss = 0.0;
    for (int64_t i = 0; i < n; i++) {
        float *scores = row + i * K;
        int64_t right = classes[i];
        if (right == ignore) {
            memset(scores, 0, (size_t)K * sizeof *scores);
            continue;
        }
        float wanted = scores[right];
        loss += (double)(softmax(scores, K) - wanted);
        scores[right] -= 1.0f;
        for (int64_t k = 0; k < K; k++)
            scores[k] *= weight;
    }
    return loss;
}

static double learn(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *sample,
                    float *map, double weight)
{
    const GrayImage *mask = &sample->mask;
    BilinearMap *grid = &work->grid;
    int64_t K = task->channels, W = mask->width, H = mask->height;
    dense_task_map(grid, sample, patch_size, 1, H, W, K);
    int64_t scores = grid->y.inputs * grid->x.inputs * K;
    float *row = dense_work_floats(work, ROW, W * K);
    float *scratch = dense_work_floats(work, SCRATCH, grid->x.inputs * K);
    float *gradient = dense_work_floats(work, GRADIENT, scores);
    memset(gradient, 0, (size_t)scores * sizeof *gradient);
    double loss = 0.0, share = 1.0 / (double)(W * H);
    for (int64_t y = 0; y < H; y++) {
        bilinear_map_row(grid, map, y, row, scratch);
        loss += learn_row(row, mask->values + y * W, W, K, task->ignore, (float)(weight * share));
        bilinear_map_row_backward(grid, gradient, y, row, scratch);
    }
    memcpy(map, gradient, (size_t)scores * sizeof *map);
    return loss * share;
}

/* Of equal ones the first. */
static int64_t largest_of(const float *values, int64_t K)
{
    int64_t best = 0;
    for (int64_t k = 1; k < K; k++)
        if (values[k] > values[best]) best = k;
    return best;
}

/* mean[H, W, K] += scores, or probabilities, of one view. */
static void add_view(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *view,
                     const GrayImage *mask, bool probabilities, const float *map, float *mean)
{
    int64_t K = task->channels, W = mask->width;
    dense_task_map(&work->grid, view, patch_size, 1, mask->height, W, K);
    float *row = dense_work_floats(work, ROW, W * K);
    float *scratch = dense_work_floats(work, SCRATCH, work->grid.x.inputs * K);
    for (int64_t y = 0; y < mask->height; y++) {
        bilinear_map_row(&work->grid, map, y, row, scratch);
        for (int64_t i = 0; i < W && probabilities; i++)
            (void)softmax(row + i * K, K);
        for (int64_t i = 0; i < W * K; i++)
            mean[y * W * K + i] += row[i];
    }
}

static void measure(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *views,
                    int64_t view_count, float *const *maps, double *cells)
{
    const GrayImage *mask = &views[0].mask;
    int64_t K = task->channels, pixels = mask->width * mask->height;
    float *mean = dense_work_floats(work, MEAN, pixels * K);
    memset(mean, 0, (size_t)(pixels * K) * sizeof *mean);
    for (int64_t v = 0; v < view_count; v++)
        add_view(task, work, patch_size, &views[v], mask, view_count > 1, maps[v], mean);
    for (int64_t i = 0; i < pixels; i++)
        if (mask->values[i] != task->ignore) cells[mask->values[i] * K + largest_of(mean + i * K, K)] += 1.0;
}

static double score(const DenseTask *task, const double *cells)
{
    ConfusionFigures figures;
    double *iou = memory_alloc_array((size_t)task->channels, sizeof *iou);
    confusion_figures(&figures, iou, cells, task->channels);
    memory_free(iou);
    return figures.miou;
}

DenseTask segmentation_task(int64_t classes, int64_t ignore)
{
    return (DenseTask){.channels = classes,
                       .cells = classes * classes,
                       .mask_bits = 8,
                       .ignore = ignore,
                       .learn = learn,
                       .measure = measure,
                       .score = score};
}
