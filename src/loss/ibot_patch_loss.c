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

IbotPatchLoss ibot_patch_loss_layout(Arena *arena, const unsigned char *masks, int64_t crops,
                                     int64_t patches_per_crop, int64_t count, int64_t first_teacher_row,
                                     double loss_weight, int64_t total_crops)
{
    IbotPatchLoss loss = {.patches = count};
    loss.positions = tensor_alloc_1d(arena, DTYPE_I32, count);
    loss.targets = tensor_alloc_2d(arena, DTYPE_I32, count, 1);
    loss.row_weight = tensor_alloc_1d(arena, DTYPE_F32, count);
    loss.loss = tensor_alloc_1d(arena, DTYPE_F32, count);
    if (arena_is_measuring(arena)) return loss;

    int32_t *positions = tensor_i32(loss.positions), *targets = tensor_i32(loss.targets);
    float *weights = tensor_f32(loss.row_weight);
    int64_t at = 0;
    for (int64_t crop = 0; crop < crops; crop++) {
        const unsigned char *mask = masks + crop * patches_per_crop;
        int64_t masked = ibot_patch_loss_count(mask, 1, patches_per_crop);
        float weight = (float)(loss_weight / (double)(masked > 0 ? masked : 1) / (double)total_crops);
        for (int64_t i = 0; i < patches_per_crop; i++) {
            if (!mask[i]) continue;
            CHECK(at < count);
            positions[at] = (int32_t)(crop * patches_per_crop + i);
            targets[at] = (int32_t)(first_teacher_row + at);
            weights[at++] = weight;
        }
    }
    CHECK(at == count);
    return loss;
}

void ibot_patch_loss_sums(const IbotPatchLoss *loss, int64_t patches_per_crop, int64_t first_crop,
                          int64_t crops_per_group, double loss_weight, double *by_group)
{
    const float *rows = tensor_f32(loss->loss), *weights = tensor_f32(loss->row_weight);
    const int32_t *positions = tensor_i32(loss->positions);
    for (int64_t i = 0; i < loss->patches; i++) {
        int64_t group = (first_crop + positions[i] / patches_per_crop) / crops_per_group;
        by_group[group] += (double)rows[i] * weights[i] / loss_weight;
    }
}
