/* depth_task.c - depths of pixels.
 *
 * Source: dinov2/eval/depth (linear_head.py, decode_head.py, sigloss.py), paper section 7.4: scores of patch
 * and class token, four times as fine by bilinear interpolation, of 256 bins; max(score, 0) + 0.1 divided by
 * the sum over bins; the mean depth; that read bilinearly at each pixel. The loss is the scale-invariant one,
 * sqrt(var(g) + 0.15 mean(g)^2), g = ln(said + 0.001) - ln(true + 0.001), over the pixels with a depth up to
 * the range's end. Figures are means over pictures, of the pixels inside the range; without NYU's Eigen crop.
 * DEVIATION: the loss is of each picture and averaged, not of all pixels of a GPU's batch, so that ranks
 * change nothing; there is no warm-up of it and no gradient loss beside it.
 */
#include "eval/dense_task.h"

#include <math.h>
#include <string.h>

enum { FINER = 4, ROW = 0, SCRATCH, DEPTHS, PIXELS, GRADIENT };

static const double LEAST = 0.1, EPSILON = 0.001, MEAN_SHARE = 0.15;

static double bin_of(const DenseTask *task, int64_t k)
{
    return task->low + (task->high - task->low) * (double)k / (double)(task->channels - 1);
}

/* Of scores[channels]; *sum: of the weights. */
static double depth_of(const DenseTask *task, const float *scores, double *sum)
{
    double all = 0.0, weighted = 0.0;
    for (int64_t k = 0; k < task->channels; k++) {
        double weight = fmax((double)scores[k], 0.0) + LEAST;
        all += weight;
        weighted += weight * (double)k;
    }
    *sum = all;
    double step = (task->high - task->low) / (double)(task->channels - 1);
    return task->low + step * weighted / all;
}

/* Depths [cells of the fine grid] of a map; work->grid leads to them, work->mask from them to the pixels. */
static float *fine_depths(const DenseTask *task, DenseWork *work, int64_t patch_size,
                          const PairSample *sample, const GrayImage *mask, const float *map)
{
    BilinearMap *grid = &work->grid;
    int64_t h = sample->height / patch_size, w = sample->width / patch_size, K = task->channels;
    bilinear_axis_init(&grid->y, h, FINER * h, 1.0 / FINER, 0.0);
    bilinear_axis_init(&grid->x, w, FINER * w, 1.0 / FINER, 0.0);
    grid->channels = K;
    dense_task_map(&work->mask, sample, patch_size, FINER, mask->height, mask->width, 1);
    float *row = dense_work_floats(work, ROW, FINER * w * K);
    float *scratch = dense_work_floats(work, SCRATCH, w * K);
    float *depths = dense_work_floats(work, DEPTHS, 2 * FINER * h * FINER * w);
    for (int64_t y = 0; y < FINER * h; y++) {
        bilinear_map_row(grid, map, y, row, scratch);
        for (int64_t x = 0; x < FINER * w; x++) {
            double sum;
            depths[y * FINER * w + x] = (float)depth_of(task, row + x * K, &sum);
        }
    }
    return depths;
}

/* said[H, W], and scratch for one row of the fine grid behind it. */
static void read_pixels(DenseWork *work, const float *depths, const GrayImage *mask, float *said)
{
    float *scratch = said + mask->height * mask->width;
    for (int64_t y = 0; y < mask->height; y++)
        bilinear_map_row(&work->mask, depths, y, said + y * mask->width, scratch);
}

/* said[n] become d loss / d said times weight; the loss. */
static double scale_invariant(const DenseTask *task, float *said, const GrayImage *mask, double weight)
{
    int64_t n = mask->width * mask->height, valid = 0;
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double depth = mask->values[i] / task->scale;
        if (depth <= 0.0 || depth > task->high) continue;
        double g = log((double)said[i] + EPSILON) - log(depth + EPSILON);
        sum += g;
        squares += g * g;
        valid++;
    }
    double mean = valid ? sum / (double)valid : 0.0;
    double variance = valid > 1 ? fmax(squares - sum * mean, 0.0) / (double)(valid - 1) : 0.0;
    double loss = sqrt(variance + MEAN_SHARE * mean * mean);
    for (int64_t i = 0; i < n; i++) {
        double depth = mask->values[i] / task->scale, there = (double)said[i] + EPSILON;
        bool counts = depth > 0.0 && depth <= task->high && valid > 1 && loss > 0.0;
        double g = counts ? log(there) - log(depth + EPSILON) : 0.0;
        double dg = (g - mean) / (double)(valid - 1) + MEAN_SHARE * mean / (double)valid;
        said[i] = counts ? (float)(weight * dg / loss / there) : 0.0f;
    }
    return loss;
}

/* d depth / d scores of each cell of the fine grid, to the patches. */
static void fine_backward(const DenseTask *task, DenseWork *work, const float *ddepths, const float *map,
                          float *gradient)
{
    const BilinearMap *grid = &work->grid;
    int64_t W = grid->x.outputs, K = task->channels;
    float *row = work->buffer[ROW], *scratch = work->buffer[SCRATCH];
    for (int64_t y = 0; y < grid->y.outputs; y++) {
        bilinear_map_row(grid, map, y, row, scratch);
        for (int64_t x = 0; x < W; x++) {
            float *scores = row + x * K;
            double sum, depth = depth_of(task, scores, &sum), d = (double)ddepths[y * W + x] / sum;
            for (int64_t k = 0; k < K; k++)
                scores[k] = scores[k] > 0.0f ? (float)(d * (bin_of(task, k) - depth)) : 0.0f;
        }
        bilinear_map_row_backward(grid, gradient, y, row, scratch);
    }
}

static double learn(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *sample,
                    float *map, double weight)
{
    const GrayImage *mask = &sample->mask;
    float *depths = fine_depths(task, work, patch_size, sample, mask, map);
    int64_t cells = work->grid.y.outputs * work->grid.x.outputs, pixels = mask->width * mask->height;
    int64_t scores = work->grid.y.inputs * work->grid.x.inputs * task->channels;
    float *said = dense_work_floats(work, PIXELS, pixels + work->grid.x.outputs);
    read_pixels(work, depths, mask, said);
    double loss = scale_invariant(task, said, mask, weight);
    float *ddepths = depths + cells;
    memset(ddepths, 0, (size_t)cells * sizeof *ddepths);
    for (int64_t y = 0; y < mask->height; y++)
        bilinear_map_row_backward(&work->mask, ddepths, y, said + y * mask->width, said + pixels);
    float *gradient = dense_work_floats(work, GRADIENT, scores);
    memset(gradient, 0, (size_t)scores * sizeof *gradient);
    fine_backward(task, work, ddepths, map, gradient);
    memcpy(map, gradient, (size_t)scores * sizeof *map);
    return loss;
}

/* --- figures --- */

enum { RMSE, ABS_REL, DELTA1, PICTURES, VALID };

static void count(const DenseTask *task, const float *sums, double share, const GrayImage *mask,
                  double *cells)
{
    double squares = 0.0, relative = 0.0;
    int64_t near = 0, valid = 0;
    for (int64_t i = 0; i < mask->width * mask->height; i++) {
        double depth = mask->values[i] / task->scale, said = (double)sums[i] * share;
        if (!(depth > task->low && depth < task->high)) continue;
        squares += (said - depth) * (said - depth);
        relative += fabs(said - depth) / depth;
        near += fmax(said / depth, depth / said) < 1.25;
        valid++;
    }
    if (!valid) return;
    cells[RMSE] += sqrt(squares / (double)valid);
    cells[ABS_REL] += relative / (double)valid;
    cells[DELTA1] += (double)near / (double)valid;
    cells[PICTURES] += 1.0;
    cells[VALID] += (double)valid;
}

static void measure(const DenseTask *task, DenseWork *work, int64_t patch_size, const PairSample *views,
                    int64_t view_count, float *const *maps, double *cells)
{
    const GrayImage *mask = &views[0].mask;
    int64_t pixels = mask->width * mask->height;
    float *sums = dense_work_floats(work, GRADIENT, pixels);
    memset(sums, 0, (size_t)pixels * sizeof *sums);
    for (int64_t v = 0; v < view_count; v++) {
        float *depths = fine_depths(task, work, patch_size, &views[v], mask, maps[v]);
        float *said = dense_work_floats(work, PIXELS, pixels + work->grid.x.outputs);
        read_pixels(work, depths, mask, said);
        for (int64_t i = 0; i < pixels; i++)
            sums[i] += said[i];
    }
    count(task, sums, 1.0 / (double)view_count, mask, cells);
}

void depth_task_figures(DepthFigures *out, const double cells[DENSE_DEPTH_CELLS])
{
    double each = cells[PICTURES] > 0.0 ? 1.0 / cells[PICTURES] : 0.0;
    *out = (DepthFigures){.rmse = cells[RMSE] * each,
                          .abs_rel = cells[ABS_REL] * each,
                          .delta1 = cells[DELTA1] * each,
                          .pictures = (int64_t)cells[PICTURES],
                          .pixels = (int64_t)cells[VALID]};
}

static double score(const DenseTask *task, const double *cells)
{
    (void)task;
    DepthFigures figures;
    depth_task_figures(&figures, cells);
    return -figures.rmse;
}

DenseTask depth_task(double low, double high, int64_t bins, double scale)
{
    return (DenseTask){.channels = bins,
                       .cells = DENSE_DEPTH_CELLS,
                       .mask_bits = 16,
                       .class_token = true,
                       .low = low,
                       .high = high,
                       .scale = scale,
                       .learn = learn,
                       .measure = measure,
                       .score = score};
}
