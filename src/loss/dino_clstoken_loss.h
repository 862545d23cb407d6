/* dino_clstoken_loss.h - the image-level loss: class tokens of student crops against the teacher's other
 * global crops.
 *
 * Source: dinov2/loss/dino_clstoken_loss.py, train/ssl_meta_arch.py; golden README traps 14-16. Student rows
 * are sample-major: [global 0, global 1, local 0 .. local L-1] of each sample; teacher rows are [global 0,
 * global 1]. A global crop is compared with the other one, a local crop with both.
 */
#ifndef DINOBATCH_LOSS_DINO_CLSTOKEN_LOSS_H
#define DINOBATCH_LOSS_DINO_CLSTOKEN_LOSS_H

#include "ops/ops.h"

/* Which samples a pass of the student holds. */
typedef struct {
    int64_t samples, local_crops;
    int64_t first_sample; /* of the pass, among this rank's; the teacher has its rows at 2 * sample + crop */
    int64_t group_size;   /* samples of a group */
    int64_t first_group;  /* of this rank, among all */
} DinoClstokenRows;

/* Rows of the pass: n = samples * (2 + L). */
typedef struct {
    Tensor targets;                   /* [n, 2] int32: rows of the teacher, -1: none */
    Tensor row_weight;                /* [n] fp32 */
    Tensor local_group, global_group; /* [n] int32: the group of a local (global) crop, -1 for the others */
    Tensor loss;                      /* [n] fp32: results of prototype_cross_entropy */
    double share;                     /* of a row's loss in the mean over terms and samples */
} DinoClstokenLoss;

/* Which comparisons the samples make. Every row counts loss_weight / ((2 + max(2 L, 1)) * total_samples),
 * total_samples being those of all ranks. */
DinoClstokenLoss dino_clstoken_loss_layout(Arena *arena, const DinoClstokenRows *rows, double loss_weight,
                                           int64_t total_samples);

/* The reference's logged values, as the samples' share of the mean over all samples, added to the entries of
 * local[groups of all ranks] fp64 and global, alike, of the groups that the samples belong to. */
void dino_clstoken_loss_sums(const DinoClstokenLoss *loss, const Ops *ops, Tensor local, Tensor global);

#endif
