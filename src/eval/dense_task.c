/* dense_task.c - what tasks share. */
#include "eval/dense_task.h"

#include "base/check.h"
#include "base/memory.h"

float *dense_work_floats(DenseWork *work, int which, int64_t count)
{
    CHECK(which >= 0 && which < DENSE_BUFFERS);
    if (count > work->room[which]) {
        memory_free(work->buffer[which]);
        work->buffer[which] = memory_alloc_array((size_t)count, sizeof(float));
        work->room[which] = count;
    }
    return work->buffer[which];
}

static void map_fini(BilinearMap *map)
{
    bilinear_axis_fini(&map->y);
    bilinear_axis_fini(&map->x);
}

void dense_work_fini(DenseWork *work)
{
    for (int i = 0; i < DENSE_BUFFERS; i++)
        memory_free(work->buffer[i]);
    map_fini(&work->grid);
    map_fini(&work->mask);
    *work = (DenseWork){0};
}

void dense_task_map(BilinearMap *map, const PairSample *sample, int64_t patch_size, int64_t finer,
                    int64_t height, int64_t width, int64_t channels)
{
    double cell = (double)patch_size / (double)finer;
    double down = (double)sample->rows / (double)height / cell;
    double right = (double)sample->columns / (double)width / cell;
    bilinear_axis_init(&map->y, sample->height / patch_size * finer, height, down,
                       (double)sample->top / cell);
    if (sample->mirrored)
        bilinear_axis_init(&map->x, sample->width / patch_size * finer, width, -right,
                           (double)(sample->left + sample->columns) / cell);
    else
        bilinear_axis_init(&map->x, sample->width / patch_size * finer, width, right,
                           (double)sample->left / cell);
    map->channels = channels;
}
