/* dino_clstoken_loss.c - targets and weights of the image-level loss. */
#include "loss/dino_clstoken_loss.h"

/* 2 global-global terms, and 2 L local-global ones; the reference counts one where there are no local crops.
 */
static double term_count(int64_t local_crops)
{
    return 2.0 + (local_crops > 0 ? 2.0 * (double)local_crops : 1.0);
}

DinoClstokenLoss dino_clstoken_loss_layout(Arena *arena, const DinoClstokenRows *rows, double loss_weight,
                                           int64_t total_samples)
{
    int64_t per_sample = 2 + rows->local_crops, n = rows->samples * per_sample;
    DinoClstokenLoss loss = {.share = 1.0 / (term_count(rows->local_crops) * (double)total_samples)};
    int32_t *targets, *local_group, *global_group;
    float *weights;
    loss.targets = tensor_stage_2d(arena, DTYPE_I32, n, 2, &targets);
    loss.row_weight = tensor_stage_1d(arena, DTYPE_F32, n, &weights);
    loss.local_group = tensor_stage_1d(arena, DTYPE_I32, n, &local_group);
    loss.global_group = tensor_stage_1d(arena, DTYPE_I32, n, &global_group);
    loss.loss = tensor_alloc_1d(arena, DTYPE_F32, n);
    if (arena_is_measuring(arena)) return loss;

    for (int64_t i = 0; i < n; i++) {
        int64_t sample = i / per_sample, crop = i % per_sample;
        int32_t first = (int32_t)(2 * (rows->first_sample + sample));
        int32_t group = (int32_t)(rows->first_group + (rows->first_sample + sample) / rows->group_size);
        weights[i] = (float)(loss_weight * loss.share);
        targets[2 * i] = crop == 0 ? first + 1 : first;
        targets[2 * i + 1] = crop < 2 ? -1 : first + 1;
        local_group[i] = crop < 2 ? -1 : group;
        global_group[i] = crop < 2 ? group : -1;
    }
    return loss;
}

void dino_clstoken_loss_sums(const DinoClstokenLoss *loss, const Ops *ops, Tensor local, Tensor global)
{
    ops->group_sums(ops, local, loss->loss, tensor_none(), loss->local_group, loss->share);
    ops->group_sums(ops, global, loss->loss, tensor_none(), loss->global_group, loss->share);
}
