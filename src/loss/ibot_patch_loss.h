/* ibot_patch_loss.h - the patch-level loss: masked patches of the student against the teacher's unmasked
 * ones.
 *
 * Source: dinov2/loss/ibot_patch_loss.py forward_masked; golden README traps 17, 18. Student and teacher rows
 * are the same masked patches in the same order; a patch weighs 1 / (masked patches of its crop).
 */
#ifndef DINOBATCH_LOSS_IBOT_PATCH_LOSS_H
#define DINOBATCH_LOSS_IBOT_PATCH_LOSS_H

#include "ops/ops.h"

/* Which patches a pass holds. */
typedef struct {
    const unsigned char *masks; /* [crops, N]; not read while measuring */
    int64_t crops, patches_per_crop;
    int64_t count;             /* masked patches in them; while measuring, as many rows are laid out */
    int64_t first_teacher_row; /* of the first masked patch */
    int64_t first_crop;        /* of the pass, among this rank's */
    int64_t crops_per_group;
    int64_t first_group; /* of this rank, among all */
} IbotPatchRows;

typedef struct {
    int64_t patches;          /* masked patches */
    const int32_t *positions; /* [patches], host: crop * N + patch, crops counted from the first of these */
    Tensor targets;           /* [patches, 1] int32: rows of the teacher */
    Tensor row_weight;        /* [patches] fp32: in the differentiated loss */
    Tensor group;             /* [patches] int32 */
    Tensor loss;              /* [patches] fp32: results of prototype_cross_entropy */
    double loss_weight;
} IbotPatchLoss;

/* Masked patches in masks[crops, N] uint8. */
int64_t ibot_patch_loss_count(const unsigned char *masks, int64_t crops, int64_t patches_per_crop);

/* Each patch counts loss_weight / (masked patches of its crop) / total_crops, total_crops being the global
 * crops of all ranks. */
IbotPatchLoss ibot_patch_loss_layout(Arena *arena, const IbotPatchRows *rows, double loss_weight,
                                     int64_t total_crops);

/* The value that is differentiated, without its weight, as these crops' share (twice what the reference
 * logs), added to the entries of by_group [groups of all ranks] fp64 of the groups that they belong to. */
void ibot_patch_loss_sums(const IbotPatchLoss *loss, const Ops *ops, Tensor by_group);

#endif
