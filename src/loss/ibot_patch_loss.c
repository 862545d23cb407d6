/* ibot_patch_loss.c - positions and weights of the patch-level loss. */
#include "loss/ibot_patch_loss.h"

#include "base/check.h"

int64_t ibot_patch_loss_count(const unsigned char *masks, int64_t crops, int64_t patches_per_crop)
{
    int64_t count = 0;
    for (int64_t i = 0; i < crops * patches_per_crop; i++)
        count += masks[i] != 0;
    return count;
}

IbotPatchLoss ibot_patch_loss_layout(Arena *arena, const IbotPatchRows *rows, double loss_weight,
                                     int64_t total_crops)
{
    IbotPatchLoss loss = {.patches = rows->count, .loss_weight = loss_weight};
    int64_t N = rows->patches_per_crop;
    int32_t *positions = arena_alloc_host(arena, (size_t)rows->count * sizeof *positions);
    int32_t *targets, *groups;
    float *weights;
    loss.positions = positions;
    loss.targets = tensor_stage_2d(arena, DTYPE_I32, rows->count, 1, &targets);
    loss.row_weight = tensor_stage_1d(arena, DTYPE_F32, rows->count, &weights);
    loss.group = tensor_stage_1d(arena, DTYPE_I32, rows->count, &groups);
    loss.loss = tensor_alloc_1d(arena, DTYPE_F32, rows->count);
    if (arena_is_measuring(arena)) return loss;

    int64_t at = 0;
    for (int64_t crop = 0; crop < rows->crops; crop++) {
        const unsigned char *mask = rows->masks + crop * N;
        int64_t masked = ibot_patch_loss_count(mask, 1, N);
        float weight = (float)(loss_weight / (double)(masked > 0 ? masked : 1) / (double)total_crops);
        for (int64_t i = 0; i < N; i++) {
            if (!mask[i]) continue;
            CHECK(at < rows->count);
            positions[at] = (int32_t)(crop * N + i);
            targets[at] = (int32_t)(rows->first_teacher_row + at);
            groups[at] = (int32_t)(rows->first_group + (rows->first_crop + crop) / rows->crops_per_group);
            weights[at++] = weight;
        }
    }
    CHECK(at == rows->count);
    return loss;
}

void ibot_patch_loss_sums(const IbotPatchLoss *loss, const Ops *ops, Tensor by_group)
{
    ops->group_sums(ops, by_group, loss->loss, loss->row_weight, loss->group, 1.0 / loss->loss_weight);
}
