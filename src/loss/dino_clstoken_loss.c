/* dino_clstoken_loss.c - targets and weights of the image-level loss. */
#include "loss/dino_clstoken_loss.h"

/* 2 global-global terms, and 2 L local-global ones; the reference counts one where there are no local crops.
 */
static double term_count(int64_t local_crops)
{
    return 2.0 + (local_crops > 0 ? 2.0 * (double)local_crops : 1.0);
}

DinoClstokenLoss dino_clstoken_loss_layout(Arena *arena, int64_t samples, int64_t local_crops,
                                           int64_t first_teacher_row, double loss_weight,
                                           int64_t total_samples)
{
    int64_t per_sample = 2 + local_crops, n = samples * per_sample;
    DinoClstokenLoss loss = {.samples = samples, .local_crops = local_crops};
    loss.targets = tensor_alloc_2d(arena, DTYPE_I32, n, 2);
    loss.row_weight = tensor_alloc_1d(arena, DTYPE_F32, n);
    loss.loss = tensor_alloc_1d(arena, DTYPE_F32, n);
    if (arena_is_measuring(arena)) return loss;

    int32_t *targets = tensor_i32(loss.targets);
    float *weights = tensor_f32(loss.row_weight);
    float weight = (float)(loss_weight / (term_count(local_crops) * (double)total_samples));
    for (int64_t i = 0; i < n; i++) {
        int64_t crop = i % per_sample;
        int32_t first = (int32_t)(first_teacher_row + 2 * (i / per_sample));
        weights[i] = weight;
        targets[2 * i] = crop == 0 ? first + 1 : first;
        targets[2 * i + 1] = crop < 2 ? -1 : first + 1;
    }
    return loss;
}

void dino_clstoken_loss_sums(const DinoClstokenLoss *loss, int64_t first_sample, int64_t group_size,
                             int64_t total_samples, double *local_by_group, double *global_by_group)
{
    int64_t per_sample = 2 + loss->local_crops;
    const float *rows = tensor_f32(loss->loss);
    double divisor = term_count(loss->local_crops) * (double)total_samples;
    for (int64_t i = 0; i < loss->samples * per_sample; i++) {
        int64_t group = (first_sample + i / per_sample) / group_size;
        double *sum = i % per_sample < 2 ? global_by_group : local_by_group;
        sum[group] += rows[i] / divisor;
    }
}
