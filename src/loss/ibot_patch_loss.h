/* ibot_patch_loss.h - the patch-level loss: masked patches of the student against the teacher's unmasked
 * ones.
 *
 * Source: dinov2/loss/ibot_patch_loss.py forward_masked; golden README traps 17, 18. Student and teacher rows
 * are the same masked patches in the same order; a patch weighs 1 / (masked patches of its crop).
 */
#ifndef DINOBATCH_LOSS_IBOT_PATCH_LOSS_H
#define DINOBATCH_LOSS_IBOT_PATCH_LOSS_H

#include "ops/ops.h"

typedef struct {
    int64_t patches;   /* masked patches */
    Tensor positions;  /* [patches] int32: crop * N + patch, crops counted from the first of these */
    Tensor targets;    /* [patches, 1] int32: rows of the teacher */
    Tensor row_weight; /* [patches] fp32: in the differentiated loss */
    Tensor loss;       /* [patches] fp32: results of prototype_cross_entropy */
} IbotPatchLoss;

/* Masked patches in masks[crops, N] uint8. */
int64_t ibot_patch_loss_count(const unsigned char *masks, int64_t crops, int64_t patches_per_crop);

/* From the masks[crops, N] of some crops, whose first masked patch is row first_teacher_row of the teacher.
 * On a measuring arena `masks` is not read and `count` rows are laid out; otherwise count is
 * ibot_patch_loss_count of them. Each patch counts loss_weight / (masked patches of its crop) / total_crops,
 * total_crops being the global crops of all ranks. */
IbotPatchLoss ibot_patch_loss_layout(Arena *arena, const unsigned char *masks, int64_t crops,
                                     int64_t patches_per_crop, int64_t count, int64_t first_teacher_row,
                                     double loss_weight, int64_t total_crops);

/* The value that is differentiated, without its weight, as these crops' share (twice what the reference
 * logs), added to the entries of the groups that they belong to: the first crop has number first_crop, its
 * group is first_crop / crops_per_group. */
void ibot_patch_loss_sums(const IbotPatchLoss *loss, int64_t patches_per_crop, int64_t first_crop,
                          int64_t crops_per_group, double loss_weight, double *by_group);

#endif
