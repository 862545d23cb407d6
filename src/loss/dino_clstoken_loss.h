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

typedef struct {
    int64_t samples, local_crops;
    Tensor targets;    /* [samples * (2 + L), 2] int32: rows of the teacher, -1: none */
    Tensor row_weight; /* [samples * (2 + L)] fp32 */
    Tensor loss;       /* [samples * (2 + L)] fp32: results of prototype_cross_entropy */
} DinoClstokenLoss;

/* Which comparisons `samples` samples make, the first of which has teacher row first_teacher_row. Every row
 * counts loss_weight / ((2 + max(2 L, 1)) * total_samples), total_samples being those of all ranks. */
DinoClstokenLoss dino_clstoken_loss_layout(Arena *arena, int64_t samples, int64_t local_crops,
                                           int64_t first_teacher_row, double loss_weight,
                                           int64_t total_samples);

/* The reference's logged values, as the samples' share of the mean over total_samples, added to the entries
 * of the groups that they belong to: the first sample has number first_sample, its group is first_sample /
 * group_size. */
void dino_clstoken_loss_sums(const DinoClstokenLoss *loss, int64_t first_sample, int64_t group_size,
                             int64_t total_samples, double *local_by_group, double *global_by_group);

#endif
